/* Acting on other processes, above all on the sandbox's init, which has the same user id. */
#include "probe.h"

#include <grp.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

static int trace(void)
{
    pid_t pid = victim();
    return judge(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
}

static int attach(void)
{
    pid_t pid = victim();
    return judge(ptrace(PTRACE_ATTACH, pid, NULL, NULL));
}

static int proc_file(const char *file, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", victim(), file);
    return open_for(path, flags);
}

static int memory_file(void)
{
    return proc_file("mem", O_RDONLY);
}
static int maps(void)
{
    return proc_file("maps", O_RDONLY);
}
static int environment(void)
{
    return proc_file("environ", O_RDONLY);
}
static int descriptors(void)
{
    return proc_file("fd", O_RDONLY | O_DIRECTORY);
}
static int root_of_init(void)
{
    return proc_file("root", O_RDONLY | O_DIRECTORY);
}
static int program_of_init(void)
{
    return proc_file("exe", O_RDONLY);
}
static int namespaces_of_init(void)
{
    return proc_file("ns/mnt", O_RDONLY);
}

/* An address that is mapped in us is mapped in a child; in init it need not be, but then the answer is EFAULT. */
static int read_memory(void)
{
    char there[8], here[8];
    pid_t pid = victim();
    struct iovec local = {here, sizeof here}, remote = {there, sizeof there};
    return judge_past(process_vm_readv(pid, &local, 1, &remote, 1, 0), EFAULT);
}

static int write_memory(void)
{
    char there[8], here[8] = {0};
    pid_t pid = victim();
    struct iovec local = {here, sizeof here}, remote = {there, sizeof there};
    return judge_past(process_vm_writev(pid, &local, 1, &remote, 1, 0), EFAULT);
}

static int take_descriptor(void)
{
    int pidfd = (int)syscall(SYS_pidfd_open, victim(), 0);
    if (pidfd == -1)
        return not_tried("pidfd_open");
    return judge(syscall(SYS_pidfd_getfd, pidfd, 0, 0));
}

static int compare(void)
{
    return judge(syscall(SYS_kcmp, getpid(), victim(), 2 /* KCMP_FILES */, 0, 0));
}

static int lower_limit(int resource)
{
    struct rlimit limit = {.rlim_cur = 64, .rlim_max = 64};
    pid_t pid = victim();
    if (syscall(SYS_prlimit64, pid, resource, &limit, NULL) == -1 || syscall(SYS_prlimit64, pid, resource, NULL, &limit) == -1)
        return REFUSED;
    return limit.rlim_cur == 64 ? SUCCEEDED : REFUSED;
}

/* With few descriptors, no processes or no time left, init could not go on: that would look like a fault of
 * the machine, and the build would be tried again. */
static int limit_descriptors(void)
{
    return lower_limit(RLIMIT_NOFILE);
}
static int limit_core(void)
{
    return lower_limit(RLIMIT_CORE);
}

/* Whether the victim still does its work: outside whether it is there and not stopped, inside whether init still
 * reaps an orphan. */
static bool works(pid_t pid)
{
    if (control) {
        int status;
        usleep(100000);
        return waitpid(pid, &status, WNOHANG | WUNTRACED) == 0;
    }
    int told[2];
    if (pipe(told) == -1)
        return false;
    if (fork() == 0) {
        pid_t orphan = fork();
        if (orphan == 0) {
            usleep(50000);
            _exit(0);
        }
        (void)!write(told[1], &orphan, sizeof orphan);
        _exit(0);
    }
    wait(NULL);
    pid_t orphan;
    if (read(told[0], &orphan, sizeof orphan) != sizeof orphan)
        return false;
    for (int tries = 0; tries < 200; tries++) {
        if (kill(orphan, 0) == -1 && errno == ESRCH)
            return true;
        usleep(10000);
    }
    return false;
}

static int attack(int number)
{
    pid_t pid = victim();
    kill(pid, number);
    int error = errno;
    bool alive = works(pid);
    errno = error;
    return alive ? REFUSED : SUCCEEDED;
}

static int kill_init(void)
{
    return attack(SIGKILL);
}
static int stop_init(void)
{
    return attack(SIGSTOP);
}
static int terminate_init(void)
{
    return attack(SIGTERM);
}
static int real_time_signal(void)
{
    return attack(SIGRTMIN + 3);
}

/* The process that the test runs on the host; its id is told by the environment. */
static pid_t outside(void)
{
    const char *text = getenv("OUTSIDE_PID");
    return text ? (pid_t)atoi(text) : 0;
}

static int see_outside(void)
{
    char path[64];
    if (outside() <= 0)
        return not_tried("OUTSIDE_PID");
    snprintf(path, sizeof path, "/proc/%d/comm", outside());
    char name[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1)
        return REFUSED;
    (void)!read(fd, name, sizeof name - 1);
    /* The number may by chance be that of one of the build's own processes. */
    const char *due = getenv("OUTSIDE_COMM");
    return due && strncmp(name, due, strlen(due)) == 0 ? SUCCEEDED : REFUSED;
}

/* Numbers of processes begin at 1 in a sandbox; one that is far beyond cannot be there. */
static int signal_outside(void)
{
    if (outside() <= 0)
        return not_tried("OUTSIDE_PID");
    return judge(kill(outside(), 0));
}

static int more_descriptors(void)
{
    if (control && dup2(1, 17) == -1)
        return not_tried("dup2");
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) != -1)
            return SUCCEEDED;
    return REFUSED;
}

static int become_root(void)
{
    return judge(setresuid(0, 0, 0));
}
static int more_groups(void)
{
    gid_t group = 0;
    return judge(setgroups(1, &group));
}
static int capabilities(void)
{
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        uint32_t effective, permitted, inheritable;
    } data[2] = {{1, 1, 0}, {0, 0, 0}};
    return judge(syscall(SYS_capset, &header, data));
}

/* A set-user-id program of root's, started by a user who is not root. Its effective user id is read while it
 * still starts. */
static int set_user_id(void)
{
    for (int tries = 0; tries < 50; tries++) {
        int begun[2];
        if (pipe2(begun, O_CLOEXEC) == -1)
            return not_tried("pipe");
        pid_t pid = fork();
        if (pid == 0) {
            if (control && (setresgid(65534, 65534, 65534) == -1 || setresuid(65534, 65534, 65534) == -1))
                _exit(99);
            close(1);
            execl("/usr/bin/mount", "mount", "--version", NULL);
            _exit(99);
        }
        close(begun[1]);
        char byte;
        (void)!read(begun[0], &byte, 1);
        close(begun[0]);
        kill(pid, SIGSTOP);
        char path[64], text[4096] = "";
        snprintf(path, sizeof path, "/proc/%d/status", pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        (void)!read(fd, text, sizeof text - 1);
        close(fd);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        unsigned real, effective;
        char *line = strstr(text, "\nUid:");
        if (strstr(text, "State:\tZ") || !line || sscanf(line, "\nUid: %u %u", &real, &effective) != 2)
            continue;
        errno = 0;
        return effective == 0 ? SUCCEEDED : REFUSED;
    }
    return not_tried("mount(8) was always too quick");
}

const struct probe PROBES[] = {
    {"ptrace-seize-init", trace},
    {"ptrace-attach-init", attach},
    {"proc-init-mem", memory_file},
    {"proc-init-maps", maps},
    {"proc-init-environ", environment},
    {"proc-init-fd", descriptors},
    {"proc-init-root", root_of_init},
    {"proc-init-exe", program_of_init},
    {"proc-init-ns", namespaces_of_init},
    {"process-vm-readv-init", read_memory},
    {"process-vm-writev-init", write_memory},
    {"pidfd-getfd-init", take_descriptor},
    {"kcmp-init", compare},
    {"prlimit-init-nofile", limit_descriptors},
    {"prlimit-init-core", limit_core},
    {"kill-init", kill_init},
    {"stop-init", stop_init},
    {"terminate-init", terminate_init},
    {"signal-init-real-time", real_time_signal},
    {"see-process-outside", see_outside},
    {"signal-process-outside", signal_outside},
    {"inherited-descriptors", more_descriptors},
    {"setuid-zero", become_root},
    {"setgroups", more_groups},
    {"capset", capabilities},
    {"setuid-program", set_user_id},
    {NULL, NULL},
};
