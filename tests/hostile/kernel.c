/* Calls and files by which a process speaks to the kernel itself. */
#include "probe.h"

#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/quota.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/quota.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/swap.h>
#include <sys/timex.h>

static int io_uring(void)
{
    uint64_t parameters[32] = {0};
    return judge(syscall(SYS_io_uring_setup, 2, parameters));
}

static int make_map(void)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = 4;
    attr.value_size = 4;
    attr.max_entries = 1;
    return judge(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr));
}

static int perf(void)
{
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.type = PERF_TYPE_SOFTWARE;
    attr.size = sizeof attr;
    attr.config = PERF_COUNT_SW_TASK_CLOCK;
    attr.exclude_kernel = 1;
    return judge(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static int user_faults(void)
{
    return judge(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
}

/* Into the process keyring, which ends with this process. */
static int add_key(void)
{
    return judge(syscall(SYS_add_key, "user", "hostile", "x", 1, -2 /* KEY_SPEC_PROCESS_KEYRING */));
}

static int join_keyring(void)
{
    return judge(syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL));
}

static int request_key(void)
{
    if (control && syscall(SYS_add_key, "user", "hostile", "x", 1, -2) == -1)
        return not_tried("add_key");
    return judge(syscall(SYS_request_key, "user", "hostile", NULL, -2));
}

static int fanotify(void)
{
    return judge(syscall(SYS_fanotify_init, 0, O_RDONLY));
}

static int file_handle(void)
{
    struct {
        unsigned bytes;
        int type;
        unsigned char handle[128];
    } handle = {.bytes = 128};
    int mount;
    if (syscall(SYS_name_to_handle_at, AT_FDCWD, "/usr", &handle, &mount, 0) == -1)
        return REFUSED;
    int fd = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return judge(syscall(SYS_open_by_handle_at, fd, &handle, O_RDONLY | O_CLOEXEC));
}

static int executable_data(void)
{
    return judge(personality(READ_IMPLIES_EXEC));
}

static int descriptor_table(void)
{
    char table[64];
    return judge(syscall(SYS_modify_ldt, 0 /* read */, table, sizeof table));
}

static int quota(void)
{
    return judge(syscall(SYS_quotactl, QCMD(Q_SYNC, USRQUOTA), NULL, 0, NULL));
}

static int host_name(void)
{
    return judge(sethostname("hostile", 7));
}

static int domain_name(void)
{
    return judge(setdomainname("hostile", 7));
}

/* Permission is looked at before the magic numbers (reboot(2)); these are wrong. */
static int restart(void)
{
    return judge_past(syscall(SYS_reboot, 0, 0, 0, NULL), EINVAL);
}

/* Sets the frequency that the clock already has. */
static int clock_frequency(void)
{
    struct timex now = {.modes = 0};
    if (control && adjtimex(&now) == -1)
        return not_tried("adjtimex");
    now.modes = ADJ_FREQUENCY;
    return judge(adjtimex(&now));
}

static int kernel_log(void)
{
    char text[64];
    return judge(klogctl(3 /* SYSLOG_ACTION_READ_ALL */, text, sizeof text));
}

static int swap(void)
{
    return judge_past(swapon("/nonexistent/hostile", 0), ENOENT);
}

static int accounting(void)
{
    return judge_past(syscall(SYS_acct, "/nonexistent/hostile"), ENOENT);
}

static int hang_up(void)
{
    setsid();
    return judge(vhangup());
}

static int move_pages(void)
{
    return judge(syscall(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0));
}

static int type_into_terminal(unsigned long request)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (terminal == -1 || grantpt(terminal) == -1 || unlockpt(terminal) == -1)
        return not_tried("ptmx");
    int slave = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    setsid();
    if (slave == -1 || ioctl(slave, TIOCSCTTY, 0) == -1)
        return not_tried("controlling terminal");
    return judge(syscall(SYS_ioctl, slave, request, "x"));
}

static int tiocsti(void)
{
    return type_into_terminal(TIOCSTI);
}

/* The kernel takes 32 bits of the request. */
static int tiocsti_high_bits(void)
{
    return type_into_terminal((1UL << 32) | TIOCSTI);
}

/* A line discipline is kernel code behind every terminal, also one's own, and may be loaded for the asking. */
static int line_discipline(void)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    int none = 27; /* N_NULL of linux/tty.h */
    if (terminal == -1)
        return not_tried("ptmx");
    return judge(ioctl(terminal, TIOCSETD, &none));
}

static int filter_calls(void)
{
    struct sock_filter allow = {.code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW};
    struct sock_fprog program = {.len = 1, .filter = &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return judge(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static int filter_calls_by_prctl(void)
{
    struct sock_filter allow = {.code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW};
    struct sock_fprog program = {.len = 1, .filter = &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return judge(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/* Nothing is reserved for it yet: so it is asked for, whether there are huge pages now or not. */
static int huge_pages(void)
{
    int id = shmget(IPC_PRIVATE, 2 << 20, IPC_CREAT | SHM_HUGETLB | SHM_NORESERVE | 0600);
    if (id != -1)
        shmctl(id, IPC_RMID, NULL);
    return judge(id);
}

static int lock_with(int command, long argument)
{
    int fd = memfd_create("locked", MFD_CLOEXEC);
    if (fd == -1)
        return not_tried("memfd_create");
    return judge(fcntl(fd, command, argument));
}

static int lock_of_description(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    return lock_with(F_OFD_SETLK, (long)&lock);
}

static int lease(void)
{
    char name[] = "/tmp/hostile-lease-XXXXXX";
    int fd = mkstemp(name);
    if (fd == -1)
        return not_tried("a file");
    unlink(name);
    return judge(fcntl(fd, F_SETLEASE, F_WRLCK));
}

static int core_limit(void)
{
    struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    if (setrlimit(RLIMIT_CORE, &limit) == -1)
        return REFUSED;
    getrlimit(RLIMIT_CORE, &limit);
    errno = 0;
    return limit.rlim_cur > 1 ? SUCCEEDED : REFUSED;
}

static int real_time(void)
{
    struct sched_param parameter = {.sched_priority = 1};
    return judge(sched_setscheduler(0, SCHED_FIFO, &parameter));
}

static int nicer(void)
{
    return judge(setpriority(PRIO_PROCESS, 0, -5));
}

/* The calls of 32-bit programs, which have other numbers: 20 is getpid. */
static int old_calls(void)
{
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    if (result == getpid())
        return SUCCEEDED;
    errno = (int)-result;
    return REFUSED;
#else
    return not_tried("other architecture");
#endif
}

static int core_pattern(void)
{
    return open_for("/proc/sys/kernel/core_pattern", O_WRONLY);
}

static int read_core_pattern(void)
{
    return open_for("/proc/sys/kernel/core_pattern", O_RDONLY);
}

static int symbols(void)
{
    return open_for("/proc/kallsyms", O_RDONLY);
}

static int keys(void)
{
    return open_for("/proc/keys", O_RDONLY);
}

static int locks(void)
{
    return open_for("/proc/locks", O_RDONLY);
}

static int disks(void)
{
    return open_for("/proc/diskstats", O_RDONLY);
}

static int messages(void)
{
    return open_for("/dev/kmsg", O_RDONLY);
}

static int slabs(void)
{
    return open_for("/proc/slabinfo", O_RDONLY);
}

static int command_line(const char *path)
{
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd == -1 ? -1 : read(fd, text, sizeof text);
    return length > 0 ? SUCCEEDED : REFUSED;
}

static int kernel_command_line(void)
{
    return command_line("/proc/cmdline");
}

static int init_command_line(void)
{
    return command_line("/proc/1/cmdline");
}

static int sys(void)
{
    return open_for("/sys/kernel", O_RDONLY | O_DIRECTORY);
}

static int cgroups(void)
{
    return open_for("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY);
}

static int oom_score(void)
{
    return open_for("/proc/self/oom_score_adj", O_WRONLY);
}

const struct probe PROBES[] = {
    {"io-uring", io_uring},
    {"bpf", make_map},
    {"perf-event", perf},
    {"userfaultfd", user_faults},
    {"add-key", add_key},
    {"join-keyring", join_keyring},
    {"request-key", request_key},
    {"fanotify", fanotify},
    {"open-by-handle", file_handle},
    {"personality-read-implies-exec", executable_data},
    {"modify-ldt", descriptor_table},
    {"quotactl", quota},
    {"sethostname", host_name},
    {"setdomainname", domain_name},
    {"reboot", restart},
    {"adjtimex", clock_frequency},
    {"syslog", kernel_log},
    {"swapon", swap},
    {"acct", accounting},
    {"vhangup", hang_up},
    {"move-pages", move_pages},
    {"tiocsti", tiocsti},
    {"tiocsti-high-bits", tiocsti_high_bits},
    {"line-discipline", line_discipline},
    {"seccomp-filter", filter_calls},
    {"seccomp-filter-prctl", filter_calls_by_prctl},
    {"shared-huge-pages", huge_pages},
    {"lock-of-description", lock_of_description},
    {"lease", lease},
    {"core-limit", core_limit},
    {"real-time", real_time},
    {"nice", nicer},
    {"int-80", old_calls},
    {"core-pattern-write", core_pattern},
    {"core-pattern-read", read_core_pattern},
    {"proc-kallsyms", symbols},
    {"proc-keys", keys},
    {"proc-locks", locks},
    {"proc-diskstats", disks},
    {"dev-kmsg", messages},
    {"proc-slabinfo", slabs},
    {"proc-cmdline", kernel_command_line},
    {"proc-1-cmdline", init_command_line},
    {"sysfs", sys},
    {"cgroupfs", cgroups},
    {"oom-score", oom_score},
    {NULL, NULL},
};
