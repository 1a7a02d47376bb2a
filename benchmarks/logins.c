/* A client of the login doors: many connections, one login outstanding on each, from one thread.
 *
 *     logins -d DOOR -a SOCKET -c CONNECTIONS -s SECONDS -k FILE_OF_LOGINS
 *
 * DOOR is how SOCKET, a unix socket, is spoken to:
 *
 *     login   mailmaps' own protocol as checkpassword.py and mailmaps.lua speak it, a connection a login
 *     kept    the same, all logins on the connections once made
 *     auth    Dovecot's auth protocol as Postfix speaks it, to mailmaps or to Dovecot, on kept connections:
 *             AUTH PLAIN with the initial response (no-penalty is for Dovecot, mailmaps does not look at it)
 *     mux     saslauthd's, a connection a login
 *
 * A line of the file is `user TAB password`; they are taken in turn, over again at the end, so that two of one
 * user are not under way while there are many more lines than connections. Ends after SECONDS or by SIGTERM,
 * and prints one JSON object: the results that came, and the latencies in microseconds, from connect(2) where
 * there is one. The end of a connection a login is "later"; a kept one that ends is an error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 256, BUFFER = 4096, LONGEST = 512 };

enum door { LOGIN, KEPT, AUTH, MUX, DOORS };

static const char *const door_names[DOORS] = {"login", "kept", "auth", "mux"};

enum { ACCEPTED, REJECTED, LATER, KINDS };

struct connection {
    int fd;
    unsigned number; /* AUTH: the id of its last question */
    int64_t sent;
    size_t held;
    char buffer[BUFFER];
};

struct login {
    char *user, *password;
};

static enum door door;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct login *logins;
static size_t login_count, next_login;
static uint32_t *latencies;
static size_t latency_count, latency_room;
static long counts[KINDS];
static int epoll;
static volatile sig_atomic_t ended;

static void end_now(int number)
{
    (void)number;
    ended = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "logins: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void read_logins(const char *name)
{
    FILE *file = fopen(name, "r");
    char line[2 * LONGEST];
    size_t room = 0;

    if (file == NULL)
        die(name);
    while (fgets(line, sizeof line, file) != NULL) {
        char *tab = strchr(line, '\t');

        line[strcspn(line, "\n")] = 0;
        if (tab == NULL || tab - line >= LONGEST || strlen(tab + 1) >= LONGEST)
            errno = EINVAL, die("a line is not user TAB password");
        if (login_count == room) {
            room = room ? 2 * room : 4096;
            logins = realloc(logins, room * sizeof *logins);
        }
        *tab = 0;
        logins[login_count].user = strdup(line);
        logins[login_count++].password = strdup(tab + 1);
    }
    fclose(file);
    if (login_count == 0)
        errno = EINVAL, die("no logins");
}

static size_t base64(char *into, const unsigned char *from, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *at = into;

    for (size_t number = 0; number < length; number += 3) {
        size_t left = length - number;
        uint32_t bits = from[number] << 16 | (left > 1 ? from[number + 1] << 8 : 0)
                        | (left > 2 ? from[number + 2] : 0);

        *at++ = digits[bits >> 18];
        *at++ = digits[bits >> 12 & 63];
        *at++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *at++ = left > 2 ? digits[bits & 63] : '=';
    }
    *at = 0;
    return at - into;
}

/* RFC 4616: authzid NUL authcid NUL password, in base64. */
static size_t auth_line(char *into, const struct login *login, unsigned number)
{
    unsigned char plain[2 * LONGEST + 2];
    char encoded[3 * LONGEST];
    size_t user = strlen(login->user), password = strlen(login->password);

    plain[0] = plain[1 + user] = 0;
    memcpy(plain + 1, login->user, user);
    memcpy(plain + 2 + user, login->password, password);
    base64(encoded, plain, 2 + user + password);
    return sprintf(into, "AUTH\t%u\tPLAIN\tservice=imap\tnologin\tno-penalty\tsecured\tresp=%s\n", number,
                   encoded);
}

/* Login, password, service, realm: each a count of 16 bits and the bytes. */
static size_t mux_strings(char *into, const struct login *login)
{
    const char *strings[4] = {login->user, login->password, "imap", ""};
    char *at = into;

    for (int number = 0; number < 4; number++) {
        size_t length = strlen(strings[number]);

        *at++ = length >> 8;
        *at++ = length;
        memcpy(at, strings[number], length);
        at += length;
    }
    return at - into;
}

static void send_all(struct connection *connection, const char *bytes, size_t length)
{
    if (write(connection->fd, bytes, length) != (ssize_t)length)
        die("write");
}

static void open_one(struct connection *connection)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};

    connection->held = 0;
    connection->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event);
}

/* Wait for the server's greeting. Dovecot wants every connection to have another CPID. */
static void greet(struct connection *connection, unsigned process)
{
    char line[64];

    send_all(connection, line, sprintf(line, "VERSION\t1\t1\nCPID\t%u\n", process));
    do {
        ssize_t got = read(connection->fd, connection->buffer + connection->held,
                           BUFFER - 1 - connection->held);

        if (got <= 0)
            die("the greeting");
        connection->held += got;
        connection->buffer[connection->held] = 0;
    } while (strstr(connection->buffer, "\nDONE\n") == NULL);
    connection->held = 0;
}

static void ask(struct connection *connection)
{
    const struct login *login = &logins[next_login++ % login_count];
    char request[4 * LONGEST];
    size_t length;

    connection->sent = now();
    if (door == LOGIN || door == MUX)
        open_one(connection);
    if (door == AUTH)
        length = auth_line(request, login, ++connection->number);
    else if (door == MUX)
        length = mux_strings(request, login);
    else
        length = sprintf(request, "LOGIN\tuser=%s\tpassword=%s\tservice=imap\tdovecot=2.3\n", login->user,
                         login->password);
    send_all(connection, request, length);
}

/* What a whole reply says; KINDS while it has not come whole. */
static int result_of(const char *reply, size_t length)
{
    if (door == MUX)
        return length < 4 ? KINDS : memcmp(reply + 2, "OK", 2) == 0 ? ACCEPTED : REJECTED;
    if (length == 0 || reply[length - 1] != '\n')
        return KINDS;
    if (strncmp(reply, "OK\t", 3) == 0)
        return ACCEPTED;
    if (strncmp(reply, "NO\n", 3) == 0)
        return REJECTED;
    if (strncmp(reply, "FAIL\t", 5) == 0)
        return memmem(reply, length, "\tcode=temp_fail", 15) ? LATER : REJECTED;
    if (strncmp(reply, "LATER\t", 6) == 0)
        return LATER;
    errno = EPROTO;
    die(reply);
    return KINDS;
}

static void count(const struct connection *connection, int kind)
{
    int64_t took = now() - connection->sent;

    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
    }
    latencies[latency_count++] = took > UINT32_MAX ? UINT32_MAX : took;
    counts[kind]++;
}

/* Whether the result has come whole; it is then counted. The end of the connection is "cannot say". */
static int has_come(struct connection *connection)
{
    ssize_t got = read(connection->fd, connection->buffer + connection->held,
                       BUFFER - 1 - connection->held);
    int kind;

    if (got < 0 && errno != ECONNRESET)
        die("read");
    connection->held += got > 0 ? got : 0;
    connection->buffer[connection->held] = 0;
    kind = got > 0 ? result_of(connection->buffer, connection->held) : LATER;
    if (kind == KINDS)
        return 0;
    count(connection, kind);
    connection->held = 0;
    if (got > 0 && (door == KEPT || door == AUTH))
        return 1;
    close(connection->fd);
    if (door == KEPT || door == AUTH)
        errno = EPIPE, die("a kept connection was closed");
    return 1;
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

static void run(struct connection *connections, int connection_count, double seconds)
{
    struct epoll_event events[MOST_CONNECTIONS];
    int64_t began, end;
    double took;

    epoll = epoll_create1(0);
    for (int number = 0; number < connection_count && (door == KEPT || door == AUTH); number++) {
        open_one(&connections[number]);
        if (door == AUTH)
            greet(&connections[number], getpid() * MOST_CONNECTIONS + number);
    }
    began = now();
    end = began + (int64_t)(seconds * 1e9);
    for (int number = 0; number < connection_count; number++)
        ask(&connections[number]);
    while (now() < end && !ended) {
        int ready = epoll_wait(epoll, events, MOST_CONNECTIONS, 100);

        for (int number = 0; number < ready; number++) {
            struct connection *connection = events[number].data.ptr;

            if (has_come(connection))
                ask(connection);
        }
    }
    took = (now() - began) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, ascending);
    printf("{\"connections\": %d, \"requests\": %zu, \"seconds\": %.6f, \"per_second\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"accepted\": %ld, \"rejected\": %ld, \"later\": %ld}\n",
           connection_count, latency_count, took, latency_count / took, percentile(0.5), percentile(0.99),
           counts[ACCEPTED], counts[REJECTED], counts[LATER]);
}

int main(int count, char **words)
{
    int connection_count = 1, letter;
    double seconds = 1;
    const char *file = NULL, *path = NULL, *name = "";
    static struct connection connections[MOST_CONNECTIONS];

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGTERM, end_now);
    while ((letter = getopt(count, words, "d:a:c:s:k:")) != -1) {
        switch (letter) {
        case 'd': name = optarg; break;
        case 'a': path = optarg; break;
        case 'c': connection_count = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'k': file = optarg; break;
        default: return 2;
        }
    }
    while (door < DOORS && strcmp(name, door_names[door]) != 0)
        door++;
    if (door == DOORS || !path || !file || strlen(path) >= sizeof address.sun_path || connection_count < 1
        || connection_count > MOST_CONNECTIONS) {
        fprintf(stderr, "logins: see the top of logins.c\n");
        return 2;
    }
    strcpy(address.sun_path, path);
    read_logins(file);
    run(connections, connection_count, seconds);
    return 0;
}
