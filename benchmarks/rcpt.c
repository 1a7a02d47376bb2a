/* SMTP clients that only ask for recipients: MAIL, many RCPT, RSET, and again, on several sessions at once.
 *
 *     rcpt -p PORT -c SESSIONS -s SECONDS -k FILE_OF_RECIPIENTS [-w WARM_UP_SECONDS] [-b RCPTS_A_MAIL]
 *          [-l LOGIN -f SENDER]
 *
 * With LOGIN smtpd is told by XCLIENT that this is who logged in (smtpd_authorized_xclient_hosts must allow it).
 * One command outstanding on each session (no pipelining, as most senders of junk do). Counting begins
 * WARM_UP_SECONDS after every session has had its first reply to a RCPT, since smtpd(8) opens its tables
 * and starts its helpers only then. Prints one JSON object; latencies are those of RCPT, in microseconds.
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

enum { MOST_SESSIONS = 256, BUFFER = 8192 };

enum state { GREETING, EHLO, XCLIENT, MAIL, RCPT, RSET };

struct session {
    int fd;
    enum state state; /* of the command whose reply is waited for */
    int in_mail;      /* RCPTs since MAIL */
    int started;      /* has had a reply to a RCPT */
    int logged_in;    /* LOGIN was told; an EHLO follows again */
    int64_t sent;
    size_t held;
    char buffer[BUFFER];
};

static const char *login, *sender = "probe@sender.test";
static char **recipients;
static size_t recipient_count, next_recipient;
static int per_mail = 50;
static uint32_t *latencies;
static size_t latency_count, latency_room;
static long accepted, refused, deferred, sessions_started;
static int64_t counting_from;

static void die(const char *what)
{
    fprintf(stderr, "rcpt: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void read_recipients(const char *name)
{
    FILE *file = fopen(name, "r");
    char line[1024];
    size_t room = 0;

    if (file == NULL)
        die(name);
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = 0;
        if (recipient_count == room) {
            room = room ? 2 * room : 4096;
            recipients = realloc(recipients, room * sizeof *recipients);
        }
        recipients[recipient_count++] = strdup(line);
    }
    fclose(file);
    if (recipient_count == 0)
        die("no recipients");
}

static void say(struct session *session, enum state state)
{
    char line[1200];
    int length = 0;

    switch (state) {
    case EHLO: length = sprintf(line, "EHLO client.test\r\n"); break;
    case XCLIENT: length = snprintf(line, sizeof line, "XCLIENT LOGIN=%s\r\n", login); break;
    case MAIL: length = snprintf(line, sizeof line, "MAIL FROM:<%s>\r\n", sender); break;
    case RCPT:
        length = snprintf(line, sizeof line, "RCPT TO:<%s>\r\n",
                          recipients[next_recipient++ % recipient_count]);
        break;
    case RSET: length = sprintf(line, "RSET\r\n"); break;
    case GREETING: break;
    }
    session->state = state;
    session->sent = now();
    if (write(session->fd, line, length) != length)
        die("write");
}

static void count(struct session *session, char code)
{
    int64_t received = now();

    sessions_started += !session->started;
    session->started = 1;
    if (counting_from == 0 || session->sent < counting_from)
        return;
    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
    }
    received -= session->sent;
    latencies[latency_count++] = received > UINT32_MAX ? UINT32_MAX : received;
    accepted += code == '2';
    refused += code == '5';
    deferred += code == '4';
}

static void go_on(struct session *session)
{
    char code = session->buffer[0];

    if (session->state == RCPT) {
        count(session, code);
        if (++session->in_mail < per_mail) {
            say(session, RCPT);
        } else {
            session->in_mail = 0;
            say(session, RSET);
        }
        return;
    }
    if (code != '2') {
        errno = EPROTO;
        die(session->buffer);
    }
    switch (session->state) {
    case GREETING: case XCLIENT: say(session, EHLO); break;
    case EHLO:
        say(session, login && !session->logged_in ? XCLIENT : MAIL);
        session->logged_in = 1;
        break;
    case RSET: say(session, MAIL); break;
    case MAIL: case RCPT: say(session, RCPT); break;
    }
}

/* Whether a reply has come whole: its last line has a blank after the code, the others a `-`. */
static int reply_has_come(struct session *session)
{
    ssize_t got = read(session->fd, session->buffer + session->held, BUFFER - 1 - session->held);
    char *line;

    if (got <= 0)
        die(got == 0 ? "smtpd closed a session" : "read");
    session->held += got;
    session->buffer[session->held] = 0;
    if (session->buffer[session->held - 1] != '\n')
        return 0;
    session->buffer[session->held - 1] = 0;
    line = strrchr(session->buffer, '\n');
    line = line ? line + 1 : session->buffer;
    session->buffer[session->held - 1] = '\n';
    if (line[3] == '-')
        return 0;
    session->held = 0;
    return 1;
}

static void open_one(struct session *session, int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;

    session->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (session->fd < 0 || connect(session->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
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

static void run(struct session *sessions, int session_count, double warm_up, double seconds)
{
    struct epoll_event events[64];
    int epoll = epoll_create1(0);
    int64_t end = INT64_MAX, patience = now() + 60000000000LL;
    double took;

    for (int number = 0; number < session_count; number++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};

        epoll_ctl(epoll, EPOLL_CTL_ADD, sessions[number].fd, &event);
    }
    while (now() < end) {
        int ready = epoll_wait(epoll, events, 64, 100);

        for (int number = 0; number < ready; number++) {
            struct session *session = &sessions[events[number].data.u32];

            if (reply_has_come(session))
                go_on(session);
        }
        if (counting_from == 0 && sessions_started == session_count) {
            counting_from = now() + (int64_t)(warm_up * 1e9);
            end = counting_from + (int64_t)(seconds * 1e9);
        }
        if (counting_from == 0 && now() > patience)
            errno = ETIMEDOUT, die("not every session got a reply to a RCPT");
    }
    took = (now() - counting_from) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, ascending);
    printf("{\"sessions\": %d, \"requests\": %zu, \"seconds\": %.6f, \"per_second\": %.1f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"accepted\": %ld, \"refused\": %ld, \"deferred\": %ld}\n",
           session_count, latency_count, took, latency_count / took, percentile(0.5), percentile(0.99),
           accepted, refused, deferred);
}

int main(int count, char **words)
{
    int port = 0, session_count = 1, letter;
    double seconds = 1, warm_up = 0.5;
    const char *file = NULL;
    static struct session sessions[MOST_SESSIONS];

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    while ((letter = getopt(count, words, "p:c:s:k:w:b:l:f:")) != -1) {
        switch (letter) {
        case 'p': port = atoi(optarg); break;
        case 'c': session_count = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'k': file = optarg; break;
        case 'w': warm_up = atof(optarg); break;
        case 'b': per_mail = atoi(optarg); break;
        case 'l': login = optarg; break;
        case 'f': sender = optarg; break;
        default: return 2;
        }
    }
    if (!port || !file || session_count < 1 || session_count > MOST_SESSIONS || per_mail < 1) {
        fprintf(stderr, "rcpt: see the top of rcpt.c\n");
        return 2;
    }
    read_recipients(file);
    for (int number = 0; number < session_count; number++)
        open_one(&sessions[number], port);
    run(sessions, session_count, warm_up, seconds);
    return 0;
}
