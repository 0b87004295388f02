/*
 * What every hostile program shares. A program is a set of probes; `PROGRAM NAME` tries one of them and exits
 * with 0 when the hostile thing succeeded, 1 when it was refused, 2 when it could not be tried at all. One line
 * tells the same in words. `PROGRAM --all` tries all of them, each in a process of its own with a deadline.
 *
 * With `--control` in front, the same is done outside a sandbox, by root: in namespaces of its own for mounts,
 * host name and IPC, so that what succeeds changes nothing of the machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SUCCEEDED = 0, REFUSED = 1, NOT_TRIED = 2 };

struct probe {
    const char *name;
    int (*run)(void);
};

/* Defined by each program. */
extern const struct probe PROBES[];

static bool control;

/* -1 of a system call is a refusal, with errno; anything else is success. */
static inline int judge(long result)
{
    return result == -1 ? REFUSED : SUCCEEDED;
}

/* For calls that look at permission first and at a deliberately wrong argument after: that errno means that
 * permission was given. */
static inline int judge_past(long result, int past)
{
    return result != -1 || errno == past ? SUCCEEDED : REFUSED;
}

static inline int not_tried(const char *why)
{
    printf("(%s: %s) ", why, strerror(errno));
    return NOT_TRIED;
}

static inline int open_for(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return judge(fd);
}

/* The process to attack: the sandbox's init inside; outside a child of our own that only waits. */
static inline pid_t victim(void)
{
    if (!control)
        return 1;
    int ready[2];
    if (pipe(ready) == -1)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ready[0]);
        close(ready[1]);
        alarm(20);
        for (;;)
            pause();
    }
    close(ready[1]);
    char byte;
    (void)!read(ready[0], &byte, 1);
    close(ready[0]);
    return pid;
}

static inline int isolate(void)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC) == -1)
        return -1;
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static inline int one(const struct probe *probe)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == -1)
        return NOT_TRIED;
    if (pid == 0) {
        alarm(10);
        bool ready = !control || isolate() == 0;
        errno = 0;
        int verdict = ready ? probe->run() : not_tried("no namespaces for the control");
        int error = errno;
        if (verdict == SUCCEEDED)
            printf("%s: SUCCEEDED\n", probe->name);
        else if (verdict == REFUSED)
            printf("%s: refused %d %s\n", probe->name, error, strerror(error));
        else
            printf("%s: not tried\n", probe->name);
        fflush(stdout);
        _exit(verdict);
    }
    int status;
    while (waitpid(pid, &status, 0) == -1)
        if (errno != EINTR)
            return NOT_TRIED;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    /* A filter that kills has refused; running into the deadline or a crash has shown nothing. */
    int verdict = WTERMSIG(status) == SIGSYS ? REFUSED : NOT_TRIED;
    printf("%s: %s signal %d\n", probe->name, verdict == REFUSED ? "refused" : "not tried", WTERMSIG(status));
    return verdict;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "--control") == 0) {
        control = true;
        argc--, argv++;
    }
    if (argc != 2) {
        fprintf(stderr, "usage: PROGRAM [--control] NAME|--all\n");
        return NOT_TRIED;
    }
    bool all = strcmp(argv[1], "--all") == 0;
    int verdict = all ? 0 : NOT_TRIED;
    for (const struct probe *probe = PROBES; probe->name; probe++) {
        if (all)
            one(probe);
        else if (strcmp(argv[1], probe->name) == 0)
            verdict = one(probe);
    }
    return verdict;
}
