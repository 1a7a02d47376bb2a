/* What many smtpd(8) ask of a policy service: many connections, one request outstanding on each, from one thread.
 *
 *     policy -p PORT -c CONNECTIONS -s SECONDS -k FILE [-t RCPT|DATA] [-n MOST_REQUESTS] [-b REQUESTS_BEFORE]
 *
 * FILE has `login TAB sender TAB action` a line, taken in turn, over again at the end; the reply must begin with
 * that action, whatever its case (access(5)). A request has all the attributes of Postfix 3.12, in its order
 * (src/smtpd/smtpd_check.c:4077-4150); login, sender, client, its port, recipient and instance are others in each,
 * so that every one is another mail. At DATA it has RECIPIENTS recipients, at RCPT one that is known.
 *
 * REQUESTS_BEFORE (1) on each connection are made before and not counted: a server has accepted it then, however
 * short its backlog, as it has where Postfix keeps its connections. Prints one JSON object: how many replies were
 * as expected and how many were others within SECONDS, how many were made in all, and the latencies in
 * microseconds from the sending to the whole reply.
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
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, BUFFER = 2048, LONGEST_REQUEST = 4096, RECIPIENTS = 2 };

struct question {
    char *login, *sender, *action;
    size_t action_length;
};

struct connection {
    int fd;
    int64_t sent;
    const struct question *question;
    size_t held;
    char buffer[BUFFER];
};

static const char *state = "RCPT";
static struct question *questions;
static size_t question_count, made;
static uint32_t *latencies; /* nanoseconds, at most 4.29 s */
static size_t latency_count, latency_room;
static long expected, others;
static char other[BUFFER]; /* the first that was not expected */

static void die(const char *what)
{
    fprintf(stderr, "policy: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static char *word(char **rest)
{
    char *found = strsep(rest, "\t");

    if (found == NULL)
        errno = EINVAL, die("a line that is not `login TAB sender TAB action`");
    return strdup(found);
}

static void read_questions(const char *name)
{
    FILE *file = fopen(name, "r");
    char line[1024];
    size_t room = 0;

    if (file == NULL)
        die(name);
    while (fgets(line, sizeof line, file) != NULL) {
        char *rest = line;
        struct question *question;

        line[strcspn(line, "\n")] = 0;
        if (question_count == room) {
            room = room ? 2 * room : 4096;
            questions = realloc(questions, room * sizeof *questions);
        }
        question = &questions[question_count++];
        question->login = word(&rest);
        question->sender = word(&rest);
        question->action = word(&rest);
        question->action_length = strlen(question->action);
    }
    fclose(file);
    if (question_count == 0)
        die("no questions");
}

/* What Postfix sends for a client that logged in on port 587 with TLS. */
static int request(char *into, const struct question *question, size_t number)
{
    int at_rcpt = strcmp(state, "RCPT") == 0;
    struct timespec time;
    char recipient[64] = ""; /* empty where there are several */

    clock_gettime(CLOCK_REALTIME, &time);
    if (at_rcpt)
        snprintf(recipient, sizeof recipient, "recipient%zu@example.org", number);
    return snprintf(
        into, LONGEST_REQUEST,
        "request=smtpd_access_policy\nprotocol_state=%s\nprotocol_name=ESMTP\n"
        "client_address=198.51.100.%zu\nclient_name=host%zu.mail.example.net\nclient_port=%zu\n"
        "reverse_client_name=host%zu.mail.example.net\nserver_address=192.0.2.1\nserver_port=587\n"
        "helo_name=[192.168.1.%zu]\nsender=%s\nrecipient=%s\nrecipient_count=%d\nqueue_id=%s\n"
        "instance=%x.%lx.%lx.%zx\nsize=%zu\netrn_domain=\nstress=\nsasl_method=PLAIN\nsasl_username=%s\n"
        "sasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\n"
        "encryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\n"
        "tls_sni=mail.example.org\npolicy_context=submission\ncompatibility_level=3.6\n"
        "mail_version=3.12-20260821\n\n",
        state, number % 254 + 1, number % 254 + 1, 1024 + number % 60000, number % 254 + 1, number % 254 + 1,
        question->sender, recipient, at_rcpt ? 0 : RECIPIENTS, at_rcpt ? "" : "4Xy3Zk1Qw5z9rT",
        (unsigned)getpid(), (long)time.tv_sec, time.tv_nsec / 1000, number, 1000 + number % 100000,
        question->login);
}

static void ask(struct connection *connection)
{
    char bytes[LONGEST_REQUEST];
    int length;

    connection->question = &questions[made % question_count];
    length = request(bytes, connection->question, made++);
    connection->sent = now();
    if (length >= LONGEST_REQUEST || write(connection->fd, bytes, length) != length)
        die("write");
}

static void count(struct connection *connection)
{
    const struct question *question = connection->question;
    const char *action = connection->buffer + strlen("action=");
    int64_t took = now() - connection->sent;

    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 20;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
    }
    latencies[latency_count++] = took > UINT32_MAX ? UINT32_MAX : took;
    if (strncmp(connection->buffer, "action=", 7) == 0
        && strncasecmp(action, question->action, question->action_length) == 0
        && (action[question->action_length] == ' ' || action[question->action_length] == '\n')) {
        expected++;
    } else if (others++ == 0) {
        snprintf(other, sizeof other, "%s as %s: %.300s", question->login, question->sender,
                 connection->buffer);
        other[strcspn(other, "\n")] = 0;
    }
}

/* Whether the reply has come whole; it is then counted. */
static int reply_has_come(struct connection *connection)
{
    ssize_t got = read(connection->fd, connection->buffer + connection->held,
                       BUFFER - 1 - connection->held);
    char *end;

    if (got <= 0)
        die(got == 0 ? "the server closed a connection" : "read");
    connection->held += got;
    connection->buffer[connection->held] = 0;
    end = strstr(connection->buffer, "\n\n");
    if (end == NULL)
        return 0;
    if (end + 2 != connection->buffer + connection->held)
        errno = EPROTO, die("more than one reply");
    connection->held = 0;
    count(connection);
    return 1;
}

static void open_one(struct connection *connection, int port, int before)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;

    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (before-- > 0) {
        ask(connection);
        while (!reply_has_come(connection))
            ;
    }
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

static void run(struct connection *connections, int connection_count, double seconds, size_t most)
{
    struct epoll_event events[256];
    int epoll = epoll_create1(0);
    int64_t began, end;
    size_t last = most < SIZE_MAX ? made + most : SIZE_MAX;
    double took;

    for (int number = 0; number < connection_count; number++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};

        epoll_ctl(epoll, EPOLL_CTL_ADD, connections[number].fd, &event);
    }
    latency_count = 0;
    expected = 0; /* those before; what was wrong stays */
    began = now();
    end = began + (int64_t)(seconds * 1e9);
    for (int number = 0; number < connection_count && made < last; number++)
        ask(&connections[number]);
    while (now() < end && latency_count < most) {
        int ready = epoll_wait(epoll, events, 256, 100);

        for (int number = 0; number < ready; number++) {
            struct connection *connection = &connections[events[number].data.u32];

            if (reply_has_come(connection) && made < last)
                ask(connection);
        }
    }
    took = (now() - began) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, ascending);
    printf("{\"connections\": %d, \"requests\": %zu, \"seconds\": %.6f, \"per_second\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"expected\": %ld, \"others\": %ld, "
           "\"made\": %zu}\n",
           connection_count, latency_count, took, latency_count / took, percentile(0.5), percentile(0.99),
           percentile(1.0), expected, others, made);
}

int main(int count, char **words)
{
    int port = 0, connection_count = 1, before = 1, letter;
    double seconds = 1;
    size_t most = SIZE_MAX;
    const char *file = NULL;
    struct connection *connections;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    while ((letter = getopt(count, words, "p:c:s:k:t:n:b:")) != -1) {
        switch (letter) {
        case 'p': port = atoi(optarg); break;
        case 'c': connection_count = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'k': file = optarg; break;
        case 't': state = optarg; break;
        case 'n': most = strtoull(optarg, NULL, 10); break;
        case 'b': before = atoi(optarg); break;
        default: return 2;
        }
    }
    if (!port || !file || connection_count < 1 || connection_count > MOST_CONNECTIONS || before < 0) {
        fprintf(stderr, "policy: see the top of policy.c\n");
        return 2;
    }
    read_questions(file);
    connections = calloc(connection_count, sizeof *connections);
    for (int number = 0; number < connection_count; number++)
        open_one(&connections[number], port, before);
    run(connections, connection_count, seconds, most);
    if (others) {
        fprintf(stderr, "policy: %ld replies were not expected, the first: %s\n", others, other);
        return 1;
    }
    return 0;
}
