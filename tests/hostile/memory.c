/*
 * Has the kernel keep as many of one thing as it gives, up to a number: `memory KIND NUMBER SECONDS [NAME]`. Prints
 * how many there are, and that they were held for so long, by a name. Whatever the kernel keeps for a build is to be counted by its cgroup,
 * or to be little.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, HUGE = 2 << 20 };

/* Which of the processes that share the work this is, from 0. */
static long part;

/* Ends with its parent, also where that has ended already; and keeps nobody waiting who reads what that says. */
static void with_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    close(STDOUT_FILENO);
}

/* Each makes the n-th of its things, and says whether that was given. */

static bool epolls(long n) { (void)n; return epoll_create1(0) != -1; }
static bool eventfds(long n) { (void)n; return eventfd(0, 0) != -1; }
static bool timerfds(long n) { (void)n; return timerfd_create(CLOCK_MONOTONIC, 0) != -1; }

static bool signalfds(long n)
{
    (void)n;
    sigset_t none;
    sigemptyset(&none);
    return signalfd(-1, &none, 0) != -1;
}

/* The owner of a descriptor, who is to get SIGIO. */
static bool owners(long n)
{
    (void)n;
    int fd = eventfd(0, 0);
    return fd != -1 && fcntl(fd, F_SETOWN, getpid()) != -1;
}

/* What one descriptor for epoll(7) has in it, which are many in many. */
static bool watched(long n)
{
    static int fds[500], in;
    if (n == 0)
        for (int i = 0; i < 500; i++)
            fds[i] = eventfd(0, 0);
    if (n % 500 == 0)
        in = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(in, EPOLL_CTL_ADD, fds[n % 500], &event) != -1;
}

static bool pipes(long n)
{
    (void)n;
    int both[2];
    static const char page[PAGE];
    if (pipe2(both, O_NONBLOCK) == -1)
        return false;
    while (write(both[1], page, sizeof page) == sizeof page)
        ;
    return true;
}

static bool watches(long n)
{
    static int notify = -1;
    char name[64];
    if (notify == -1)
        notify = inotify_init1(0);
    snprintf(name, sizeof name, "watched.%ld.%ld", part, n);
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    close(fd);
    return fd != -1 && inotify_add_watch(notify, name, IN_ALL_EVENTS) != -1;
}

static bool directories(long n)
{
    char name[64];
    snprintf(name, sizeof name, "notified.%ld.%ld", part, n);
    if (mkdir(name, 0700) == -1)
        return false;
    int fd = open(name, O_RDONLY);
    return fd != -1 && fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT) != -1;
}

static bool timers(long n)
{
    (void)n;
    timer_t timer;
    struct sigevent nothing = {.sigev_notify = SIGEV_NONE};
    return timer_create(CLOCK_MONOTONIC, &nothing, &timer) != -1;
}

static bool signals(long n)
{
    if (n == 0) {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, SIGRTMIN);
        sigprocmask(SIG_BLOCK, &one, NULL);
    }
    union sigval value = {.sival_int = (int)n};
    return sigqueue(getpid(), SIGRTMIN, value) != -1;
}

static bool messages(long n)
{
    static int queue = -1;
    struct { long kind; char text[4000]; } message = {.kind = 1};
    if (n % 4 == 0)
        queue = msgget(IPC_PRIVATE, 0600);
    return queue != -1 && msgsnd(queue, &message, sizeof message.text, IPC_NOWAIT) != -1;
}

static bool semaphores(long n) { (void)n; return semget(IPC_PRIVATE, 250, 0600) != -1; }

static bool undos(long n)
{
    (void)n;
    int set = semget(IPC_PRIVATE, 250, 0600);
    struct sembuf up = {.sem_num = 249, .sem_op = 1, .sem_flg = SEM_UNDO};
    return set != -1 && semop(set, &up, 1) != -1;
}

static bool segments(long n)
{
    (void)n;
    int segment = shmget(IPC_PRIVATE, PAGE, 0600);
    return segment != -1;
}

static bool attributes(long n)
{
    static char value[4000];
    static int fd = -1;
    char name[64];
    if (n % 16 == 0) {
        close(fd);
        snprintf(name, sizeof name, "attributes.%ld.%ld", part, n);
        fd = open(name, O_CREAT | O_WRONLY, 0600);
    }
    snprintf(name, sizeof name, "user.%ld", n % 16);
    return fd != -1 && fsetxattr(fd, name, value, sizeof value, 0) != -1;
}

/* Tables for memory of which a page is used in 2 MiB. */
static bool tables(long n)
{
    static char *all;
    if (n == 0)
        all = mmap(NULL, 20000UL * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return false;
    madvise(all + n * HUGE, HUGE, MADV_NOHUGEPAGE);
    /* Reading takes the page of zeros, and a table. */
    volatile char *page = all + n * HUGE;
    (void)*page;
    return true;
}

static char *mapping(long n)
{
    static char *all;
    if (n == 0)
        all = mmap(NULL, 60000UL * 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return all == MAP_FAILED ? NULL : all + n * 2 * PAGE;
}

static bool mappings(long n)
{
    char *one = mapping(n);
    return one && mprotect(one, PAGE, PROT_READ) != -1;
}

/* A policy of memory for each mapping. */
static bool policies(long n)
{
    char *one = mapping(n);
    unsigned long nodes = 1;
    /* MPOL_BIND to the first node. */
    return one && syscall(SYS_mbind, one, PAGE, 2, &nodes, 2, 0) != -1;
}

/* A name for each mapping. */
static bool named(long n)
{
    char *one = mapping(n), name[80];
    memset(name, 'x', sizeof name - 1);
    snprintf(name, 20, "%ld.%ld", part, n);
    name[strlen(name)] = 'x';
    name[sizeof name - 1] = '\0';
    return one && prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, one, PAGE, name) != -1;
}

static bool in_flight(long n)
{
    static int both[2];
    if (n % 10 == 0 && socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, both) == -1)
        return false;
    int fds[200];
    for (int i = 0; i < 200; i++)
        fds[i] = both[0];
    char room[CMSG_SPACE(sizeof fds)], byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(header), fds, sizeof fds);
    return sendmsg(both[1], &message, 0) != -1;
}

/* Connections that were closed, and are kept for a minute. */
static bool closed(long n)
{
    static int listening = -1;
    static struct sockaddr_in address = {.sin_family = AF_INET};
    if (n == 0) {
        socklen_t length = sizeof address;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)part);
        listening = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listening, (void *)&address, sizeof address) == -1 || listen(listening, 10) == -1)
            return false;
        getsockname(listening, (void *)&address, &length);
    }
    int to = socket(AF_INET, SOCK_STREAM, 0);
    if (to == -1 || connect(to, (void *)&address, sizeof address) == -1)
        return false;
    int from = accept(listening, NULL, NULL);
    close(from);
    close(to);
    return from != -1;
}

static bool groups(long n)
{
    static int fd = -1;
    if (n % 20 == 0)
        fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct ip_mreqn group = {.imr_ifindex = 1};
    group.imr_multiaddr.s_addr = htonl(0xe0010000 + (uint32_t)(n + part * 20000));
    return fd != -1 && setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) != -1;
}

static bool absent(long n)
{
    char name[64];
    struct stat status;
    snprintf(name, sizeof name, "/build/absent.%ld.%ld", part, n);
    if (stat("/build", &status) == -1)
        snprintf(name, sizeof name, "absent.%ld.%ld", part, n);
    return stat(name, &status) == -1 && errno == ENOENT;
}

static bool files(long n)
{
    char name[64];
    snprintf(name, sizeof name, "file.%ld.%ld", part, n);
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    return fd != -1 && close(fd) == 0;
}

static bool processes(long n)
{
    (void)n;
    pid_t own = getpid(), pid = fork();
    if (pid == 0) {
        with_parent(own);
        for (;;)
            pause();
    }
    return pid != -1;
}

static bool status_files(long n)
{
    (void)n;
    int fd = open("/proc/self/status", O_RDONLY);
    char byte;
    return fd != -1 && read(fd, &byte, 1) == 1;
}

static const struct {
    const char *name;
    bool (*take)(long);
    /* How many one process takes. */
    long each;
} KINDS[] = {
    {"epoll", epolls, 15000},
    {"epoll-items", watched, 500000},
    {"eventfd", eventfds, 15000},
    {"timerfd", timerfds, 15000},
    {"signalfd", signalfds, 15000},
    {"descriptor-owners", owners, 15000},
    {"inotify-watches", watches, 20000},
    {"dnotify", directories, 15000},
    {"pipes", pipes, 4000},
    {"posix-timers", timers, 20000},
    {"signals", signals, 20000},
    {"sysv-messages", messages, 20000},
    {"sysv-semaphores", semaphores, 20000},
    {"sysv-undo", undos, 2000},
    {"sysv-memory", segments, 4096},
    {"extended-attributes", attributes, 20000},
    {"page-tables", tables, 20000},
    {"mappings", mappings, 30000},
    {"memory-policies", policies, 30000},
    {"mapping-names", named, 30000},
    {"descriptors-in-flight", in_flight, 20000},
    {"closed-connections", closed, 20000},
    {"multicast-groups", groups, 10000},
    {"absent-names", absent, 100000},
    {"inodes", files, 100000},
    {"processes", processes, 500},
    {"proc-files", status_files, 15000},
};

int main(int argc, char **argv)
{
    int taken[2];
    if (argc < 4 || argc > 5 || pipe(taken) == -1)
        return 2;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 20000 ? limit.rlim_max : 20000;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IOLBF, 0);
    size_t kind = 0, kinds = sizeof KINDS / sizeof *KINDS;
    while (kind < kinds && strcmp(argv[1], KINDS[kind].name) != 0)
        kind++;
    if (kind == kinds)
        return 2;
    long number = atol(argv[2]), each = KINDS[kind].each;
    for (long first = 0; first < number; first += each, part++) {
        pid_t own = getpid(), pid = fork();
        if (pid == 0) {
            long most = number - first < each ? number - first : each, done = 0;
            with_parent(own);
            while (done < most && KINDS[kind].take(done))
                done++;
            long told[2] = {done, done < most ? errno : 0};
            if (write(taken[1], told, sizeof told) != sizeof told)
                _exit(1);
            for (;;)
                pause();
        }
        if (pid == -1)
            break;
    }
    close(taken[1]);
    long all = 0, told[2], why = 0;
    for (long i = 0; i < part && read(taken[0], told, sizeof told) == sizeof told; i++) {
        all += told[0];
        why = told[1] ? told[1] : why;
    }
    const char *name = argc == 5 ? argv[4] : argv[1];
    printf("%s took %ld %s\n", name, all, why ? strerrorname_np((int)why) : "");
    double seconds = atof(argv[3]);
    struct timespec hold = {.tv_sec = (time_t)seconds};
    hold.tv_nsec = (long)((seconds - (double)hold.tv_sec) * 1e9);
    nanosleep(&hold, NULL);
    printf("%s held\n", name);
    return 0;
}
