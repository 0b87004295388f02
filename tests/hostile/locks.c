/*
 * Takes file locks by the hundred thousand, and holds them: `locks MODE NUMBER SECONDS`. Prints how many were taken,
 * and that they were held for so long; whoever holds them is left. Each mode hides them from another way of counting.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* One file with too many would take the square of the time. */
enum { EACH = 250 };

static int taken[2];

static void tell(long number)
{
    if (write(taken[1], &number, sizeof number) != sizeof number)
        _exit(1);
}

/* Record locks, on files that have no name in any file system of the build. */
static void take(long number)
{
    for (long done = 0; done < number;) {
        int fd = memfd_create("locks", 0);
        if (fd == -1)
            _exit(2);
        for (long i = 0; i < EACH && done < number; i++, done++) {
            struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 2 * i, .l_len = 1};
            if (fcntl(fd, F_SETLK, &lock) == -1)
                _exit(3);
        }
    }
    tell(number);
}

/* A copy of this process that shares its descriptors without being a thread of it. */
static pid_t sharing(void)
{
    return syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
}

static void plain(long number)
{
    take(number);
    pause();
}

/* Several processes, none of which has so many. */
static void spread(long number)
{
    for (int i = 0; i < 10; i++)
        if (fork() == 0)
            plain(number / 10);
    pause();
}

/* Who has taken them is gone: by its process id nobody finds them. */
static void dead(long number)
{
    pid_t pid = sharing();
    if (pid == 0) {
        take(number);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    pause();
}

/* They are handed from process to process, each of which lives for a moment. */
static void hop(long number)
{
    take(number);
    for (;;) {
        if (sharing() != 0)
            _exit(0);
        usleep(200);
    }
}

static void *of_a_thread(void *number)
{
    usleep(100000);
    if (unshare(CLONE_FILES) == -1)
        _exit(4);
    take((long)number);
    pause();
    return NULL;
}

/* In the descriptor table of one thread alone, and the process seems to have none. */
static void thread(long number)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, of_a_thread, (void *)number) != 0)
        _exit(5);
    syscall(SYS_exit, 0);
}

/* One lock for each open file, which is all that flock(2) gives. */
static void whole(long number)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    long each = (long)files.rlim_cur - 50;
    for (long done = 0; done < number; done += each) {
        long part = number - done < each ? number - done : each;
        if (fork() == 0) {
            for (long i = 0; i < part; i++) {
                char name[32];
                snprintf(name, sizeof name, "locked.%ld", (done + i) / EACH);
                int fd = open(name, O_RDWR | O_CREAT, 0600);
                if (fd == -1 || flock(fd, LOCK_SH) == -1)
                    _exit(6);
            }
            tell(part);
            pause();
        }
    }
    pause();
}

static const struct {
    const char *name;
    void (*run)(long);
} MODES[] = {
    {"plain", plain}, {"spread", spread}, {"dead", dead}, {"hop", hop}, {"thread", thread}, {"whole", whole},
};

int main(int argc, char **argv)
{
    if (argc != 4 || pipe(taken) == -1)
        return 7;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < 20000 ? files.rlim_max : 20000;
    setrlimit(RLIMIT_NOFILE, &files);
    setvbuf(stdout, NULL, _IOLBF, 0);
    long number = atol(argv[2]);
    if (fork() == 0) {
        for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
            if (strcmp(argv[1], MODES[i].name) == 0)
                MODES[i].run(number);
        _exit(8);
    }
    close(taken[1]);
    long all = 0, part;
    while (all < number && read(taken[0], &part, sizeof part) == sizeof part)
        all += part;
    printf("took %ld\n", all);
    sleep((unsigned)atoi(argv[3]));
    puts("held");
    return 0;
}
