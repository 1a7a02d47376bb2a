/* The floor: a tcp_table(5) server that knows one fixed reply for each port, and does nothing else.
 *
 *     floor [-u PREFIX] REPLY...      one port a REPLY ("200 x"); prints the ports, a line each, then serves
 *
 * With -u, keys that begin with PREFIX are not found on any port, so that one Postfix can ask for both kinds.
 *
 * One thread, epoll, TCP_NODELAY, one read and one write a wake-up: what no server of this protocol can
 * be faster than on this machine. It ends with whoever started it (PR_SET_PDEATHSIG).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_FILES = 65536, MOST_EVENTS = 256, READ_SIZE = 65536 };

struct reply {
    char text[4096];
    size_t length;
};

static struct reply *replies[MOST_FILES]; /* by descriptor: of a listener and of its connections */
static int listens[MOST_FILES];
static const char *unknown_prefix = "";
static struct reply not_found;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void fill(struct reply *reply, const char *text)
{
    reply->length = snprintf(reply->text, sizeof reply->text, "%s\n", text);
}

static void watch(int epoll, int fd, struct reply *reply)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (fd >= MOST_FILES)
        die("too many descriptors");
    replies[fd] = reply;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static int listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 1024) < 0
        || getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    return fd;
}

static void take(int epoll, int listener)
{
    int on = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(epoll, fd, replies[listener]);
}

/* The reply to a line, which is `get KEY`; a line that came in pieces counts as known. */
static struct reply *reply_to(const char *line, const char *end, struct reply *usual)
{
    size_t length = strlen(unknown_prefix);

    if (length > 0 && end - line >= (ssize_t)(4 + length) && memcmp(line + 4, unknown_prefix, length) == 0)
        return &not_found;
    return usual;
}

static void answer(int fd)
{
    static char input[READ_SIZE];
    static char output[READ_SIZE];
    size_t size = 0;
    ssize_t got = read(fd, input, sizeof input);
    char *line = input, *end;

    if (got <= 0) {
        close(fd);
        return;
    }
    for (; (end = memchr(line, '\n', input + got - line)) != NULL; line = end + 1) {
        struct reply *reply = reply_to(line, end, replies[fd]);

        if (size + reply->length > sizeof output)
            break;
        memcpy(output + size, reply->text, reply->length);
        size += reply->length;
    }
    if (size > 0 && write(fd, output, size) != (ssize_t)size)
        close(fd);
}

int main(int count, char **words)
{
    struct epoll_event events[MOST_EVENTS];
    int letter, epoll = epoll_create1(0);

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    fill(&not_found, "500 not%20found");
    while ((letter = getopt(count, words, "u:")) == 'u')
        unknown_prefix = optarg;
    for (int number = optind; number < count; number++) {
        struct reply *reply = calloc(1, sizeof *reply);
        int listener = listen_somewhere();

        fill(reply, words[number]);
        watch(epoll, listener, reply);
        listens[listener] = 1;
    }
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, MOST_EVENTS, -1);

        for (int number = 0; number < ready; number++) {
            int fd = events[number].data.fd;

            if (listens[fd])
                take(epoll, fd);
            else
                answer(fd);
        }
    }
}
