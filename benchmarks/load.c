/* A load generator: many connections, one request outstanding on each, from one thread.
 *
 *     load -p PORT -c CONNECTIONS -s SECONDS -k FILE_OF_KEYS [-n MOST_REQUESTS] [-r REQUESTS_A_SECOND]
 *     load ... -u USER -d DATABASE -q "SELECT value FROM relation WHERE key = '%s'"
 *
 * The first asks a tcp_table(5) server for `get KEY`; the second asks PostgreSQL as Postfix's pgsql: does,
 * with one statement of the simple protocol a key (the server must trust USER). Keys are taken in turn,
 * over again at the end, and must need no quoting. With -r they are sent at that pace, by connections that
 * wait for no reply, else each connection sends as soon as it has its reply. Prints one JSON object: how many
 * replies of each kind came within SECONDS, and the latencies in microseconds from the sending (with -r, from
 * when it was due) to the whole reply.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, BUFFER = 65536, LONGEST_REQUEST = 4096 };

enum { FOUND, NOT_FOUND, UNAVAILABLE, KINDS };

struct connection {
    int fd;
    int rows;  /* PostgreSQL: rows of this reply so far, -1 after an error */
    int ready; /* PostgreSQL: has said that it takes queries */
    int64_t sent; /* 0: no request is outstanding */
    size_t held;
    char buffer[BUFFER];
};

struct request {
    char *bytes;
    size_t length;
};

static const char *user, *database, *query;
static int timer;
static struct request *requests;
static size_t request_count, next_request;
static uint32_t *latencies; /* nanoseconds, at most 4.29 s */
static size_t latency_count, latency_room;
static long counts[KINDS];

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void put_length(char *at, uint32_t length)
{
    length = htonl(length);
    memcpy(at, &length, 4);
}

static uint32_t get_length(const char *at)
{
    uint32_t length;

    memcpy(&length, at, 4);
    return ntohl(length);
}

/* protocol-message-formats: 'Q', length (itself included), the statement, NUL. */
static size_t statement(char *into, const char *key)
{
    const char *place = strstr(query, "%s");
    int length = snprintf(into + 5, LONGEST_REQUEST - 5, "%.*s%s%s", (int)(place - query), query, key,
                          place + 2);

    into[0] = 'Q';
    put_length(into + 1, 4 + length + 1);
    return 5 + length + 1;
}

static void read_keys(const char *name)
{
    FILE *file = fopen(name, "r");
    char line[1024], request[LONGEST_REQUEST];
    size_t room = 0;

    if (file == NULL)
        die(name);
    while (fgets(line, sizeof line, file) != NULL) {
        size_t length;

        line[strcspn(line, "\n")] = 0;
        length = query ? statement(request, line)
                       : (size_t)snprintf(request, sizeof request, "get %s\n", line);
        if (request_count == room) {
            room = room ? 2 * room : 4096;
            requests = realloc(requests, room * sizeof *requests);
        }
        requests[request_count].bytes = malloc(length);
        memcpy(requests[request_count].bytes, request, length);
        requests[request_count++].length = length;
    }
    fclose(file);
    if (request_count == 0)
        die("no keys");
}

static void send_all(struct connection *connection, const char *bytes, size_t length)
{
    if (write(connection->fd, bytes, length) != (ssize_t)length)
        die("write");
}

static void ask(struct connection *connection)
{
    struct request *request = &requests[next_request++ % request_count];

    connection->rows = 0;
    connection->sent = now();
    send_all(connection, request->bytes, request->length);
}

/* Int32 length, Int32 196608 (3.0), "user", its name, "database", its name, NUL. */
static void introduce(struct connection *connection)
{
    char message[512];
    int length = 8;

    put_length(message + 4, 196608);
    length += snprintf(message + length, sizeof message - length, "user%c%s%cdatabase%c%s%c", 0, user, 0, 0,
                       database, 0);
    message[length++] = 0;
    put_length(message, length);
    send_all(connection, message, length);
}

static void count(struct connection *connection, int kind)
{
    int64_t took = now() - connection->sent;

    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 20;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
    }
    latencies[latency_count++] = took > UINT32_MAX ? UINT32_MAX : took;
    counts[kind]++;
}

/* Whether the reply has come whole; it is then counted. */
static int line_has_come(struct connection *connection)
{
    char *end = memchr(connection->buffer, '\n', connection->held);

    if (end == NULL)
        return 0;
    if (end + 1 != connection->buffer + connection->held)
        die("more than one reply");
    connection->held = 0;
    count(connection, connection->buffer[0] == '2'   ? FOUND
                      : connection->buffer[0] == '5' ? NOT_FOUND
                                                     : UNAVAILABLE);
    return 1;
}

/* Messages are a type, a length and a body; 'D' is a row, 'E' an error, 'Z' ends the reply. */
static int result_has_come(struct connection *connection)
{
    size_t at = 0;
    int whole = 0;

    while (connection->held - at >= 5) {
        size_t length = 1 + get_length(connection->buffer + at + 1);

        if (connection->held - at < length)
            break;
        if (connection->buffer[at] == 'D' && connection->rows >= 0)
            connection->rows++;
        else if (connection->buffer[at] == 'E')
            connection->rows = -1;
        else if (connection->buffer[at] == 'R' && get_length(connection->buffer + at + 5) != 0)
            errno = EACCES, die("the server wants a password");
        else if (connection->buffer[at] == 'Z')
            whole = 1;
        at += length;
    }
    memmove(connection->buffer, connection->buffer + at, connection->held - at);
    connection->held -= at;
    if (whole && connection->ready)
        count(connection, connection->rows > 0 ? FOUND : connection->rows == 0 ? NOT_FOUND : UNAVAILABLE);
    return whole;
}

static int reply_has_come(struct connection *connection)
{
    ssize_t got = read(connection->fd, connection->buffer + connection->held, BUFFER - connection->held);

    if (got <= 0)
        die(got == 0 && connection->held ? connection->buffer : "read");
    connection->held += got;
    return query ? result_has_come(connection) : line_has_come(connection);
}

static void open_one(struct connection *connection, int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;

    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (query == NULL)
        return;
    introduce(connection);
    while (!reply_has_come(connection))
        if (connection->rows < 0)
            errno = ECONNREFUSED, die("PostgreSQL refuses (too many clients?)");
    connection->ready = 1;
}

static int ascending(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return a < b ? -1 : a > b;
}

static double percentile(double part)
{
    return latency_count ? latencies[(size_t)(part * (latency_count - 1))] / 1000.0 : 0;
}

enum { TIMER = UINT32_MAX }; /* in place of a connection's number */

/* With -r: a timer that wakes epoll at each request that is due. */
static void set_pace(int epoll, double rate)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = TIMER};
    long every = rate > 1 ? 1e9 / rate : 999999999;
    struct itimerspec pace = {.it_interval.tv_nsec = every, .it_value.tv_nsec = every};

    timer = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(timer, 0, &pace, NULL);
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
}

/* Ask as many keys as are due; one that finds every connection waiting waits for the first to be free. */
static void ask_due(struct connection *connections, int connection_count, int64_t began, double rate)
{
    static int next;
    size_t due = (now() - began) / 1e9 * rate;

    for (int tried = 0; next_request < due && tried < connection_count; tried++) {
        struct connection *connection = &connections[next++ % connection_count];

        if (connection->sent == 0) {
            int64_t should = began + (int64_t)((next_request + 1) * 1e9 / rate);

            ask(connection);
            connection->sent = should;
        }
    }
}

static void run(struct connection *connections, int connection_count, double seconds, size_t most,
                double rate)
{
    struct epoll_event events[256];
    int epoll = epoll_create1(0);
    int64_t began, end;
    double took;
    uint64_t expired;

    for (int number = 0; number < connection_count; number++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};

        epoll_ctl(epoll, EPOLL_CTL_ADD, connections[number].fd, &event);
    }
    began = now();
    end = began + (int64_t)(seconds * 1e9);
    if (rate > 0)
        set_pace(epoll, rate);
    for (int number = 0; number < connection_count && next_request < most && rate <= 0; number++)
        ask(&connections[number]);
    while (now() < end && latency_count < most) {
        int ready = epoll_wait(epoll, events, 256, 100);

        for (int number = 0; number < ready; number++) {
            if (events[number].data.u32 == TIMER) {
                if (read(timer, &expired, sizeof expired) < 0)
                    die("timer");
                continue;
            }
            struct connection *connection = &connections[events[number].data.u32];

            if (!reply_has_come(connection))
                continue;
            connection->sent = 0;
            if (rate <= 0 && next_request < most)
                ask(connection);
        }
        if (rate > 0)
            ask_due(connections, connection_count, began, rate);
    }
    took = (now() - began) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, ascending);
    printf("{\"connections\": %d, \"requests\": %zu, \"seconds\": %.6f, \"per_second\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
           "\"found\": %ld, \"not_found\": %ld, \"unavailable\": %ld}\n",
           connection_count, latency_count, took, latency_count / took, percentile(0.5), percentile(0.99),
           percentile(1.0), counts[FOUND], counts[NOT_FOUND], counts[UNAVAILABLE]);
}

int main(int count, char **words)
{
    int port = 0, connection_count = 1, letter;
    double seconds = 1, rate = 0;
    size_t most = SIZE_MAX;
    const char *keys = NULL;
    struct connection *connections;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    while ((letter = getopt(count, words, "p:c:s:k:n:r:u:d:q:")) != -1) {
        switch (letter) {
        case 'p': port = atoi(optarg); break;
        case 'c': connection_count = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'k': keys = optarg; break;
        case 'n': most = strtoull(optarg, NULL, 10); break;
        case 'r': rate = atof(optarg); break;
        case 'u': user = optarg; break;
        case 'd': database = optarg; break;
        case 'q': query = optarg; break;
        default: return 2;
        }
    }
    if (!port || !keys || connection_count < 1 || connection_count > MOST_CONNECTIONS
        || (query && (!user || !database || !strstr(query, "%s")))) {
        fprintf(stderr, "load: see the top of load.c\n");
        return 2;
    }
    read_keys(keys);
    connections = calloc(connection_count, sizeof *connections);
    for (int number = 0; number < connection_count; number++)
        open_one(&connections[number], port);
    run(connections, connection_count, seconds, most, rate);
    return 0;
}
