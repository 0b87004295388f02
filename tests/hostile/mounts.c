/* Changing what is mounted, and making or entering namespaces. */
#include "probe.h"

#define OLD_OPEN_TREE_CLONE 1

static char place[] = "/tmp/hostile-XXXXXX";

static const char *directory(void)
{
    return mkdtemp(place);
}

static int mount_old(void)
{
    if (!directory())
        return not_tried("mkdtemp");
    int verdict = judge(mount("none", place, "tmpfs", 0, "size=4k"));
    int error = errno;
    umount2(place, MNT_DETACH);
    rmdir(place);
    errno = error;
    return verdict;
}

static int mount_new(void)
{
    return judge(syscall(SYS_fsopen, "tmpfs", 0));
}

static int mount_bind(void)
{
    if (!directory())
        return not_tried("mkdtemp");
    int verdict = judge(mount("/usr", place, NULL, MS_BIND, NULL));
    int error = errno;
    umount2(place, MNT_DETACH);
    rmdir(place);
    errno = error;
    return verdict;
}

static int clone_tree(void)
{
    return judge(syscall(SYS_open_tree, AT_FDCWD, "/usr", OLD_OPEN_TREE_CLONE));
}

/* Outside, a read-only bind mount in a private namespace stands for the sandbox's. */
static int read_only_usr(void)
{
    if (!control)
        return 0;
    if (mount("/usr", "/usr", NULL, MS_BIND, NULL) == -1)
        return -1;
    return mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
}

static int remount(void)
{
    if (read_only_usr() == -1)
        return not_tried("bind");
    return judge(mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL));
}

static int set_attributes(void)
{
    struct {
        uint64_t set, clear, propagation, userns;
    } attributes = {.clear = 1 /* MOUNT_ATTR_RDONLY */};
    if (read_only_usr() == -1)
        return not_tried("bind");
    return judge(syscall(SYS_mount_setattr, AT_FDCWD, "/usr", 0, &attributes, sizeof attributes));
}

static int unmount(void)
{
    if (control && mount("none", "/usr", "tmpfs", 0, "size=4k") == -1)
        return not_tried("mount");
    return judge(umount2("/usr", MNT_DETACH));
}

static int pivot(void)
{
    if (!directory())
        return not_tried("mkdtemp");
    if (control && mount("none", place, "tmpfs", 0, "size=4k") == -1)
        return not_tried("mount");
    int verdict = judge(chdir(place) == -1 ? -1 : syscall(SYS_pivot_root, ".", "."));
    int error = errno;
    if (control && verdict == SUCCEEDED)
        umount2(".", MNT_DETACH);
    rmdir(place);
    errno = error;
    return verdict;
}

static int change_root(void)
{
    return judge(chroot("/usr"));
}

static int unshare_user(void)
{
    return judge(unshare(CLONE_NEWUSER));
}
static int unshare_mount(void)
{
    return judge(unshare(CLONE_NEWNS));
}
static int unshare_pid(void)
{
    return judge(unshare(CLONE_NEWPID));
}
static int unshare_net(void)
{
    return judge(unshare(CLONE_NEWNET));
}
static int unshare_ipc(void)
{
    return judge(unshare(CLONE_NEWIPC));
}
static int unshare_uts(void)
{
    return judge(unshare(CLONE_NEWUTS));
}
static int unshare_cgroup(void)
{
    return judge(unshare(CLONE_NEWCGROUP));
}
static int unshare_time(void)
{
    return judge(unshare(0x80 /* CLONE_NEWTIME */));
}

static int reaped(long pid)
{
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, __WALL);
    return judge(pid);
}

static int clone_user(void)
{
    return reaped(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
}

/* The kernel reads 32 bits of the flags' lower half; a filter that compared 64 could be told apart. */
static int clone_user_high_bits(void)
{
    return reaped(syscall(SYS_clone, (1UL << 40) | CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
}

static int clone3_user(void)
{
    uint64_t arguments[11] = {CLONE_NEWUSER};
    arguments[4] = SIGCHLD;
    return reaped(syscall(SYS_clone3, arguments, sizeof arguments));
}

static int enter(void)
{
    int fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
    if (fd == -1)
        return not_tried("/proc/self/ns/uts");
    return judge(setns(fd, CLONE_NEWUTS));
}

const struct probe PROBES[] = {
    {"mount-old", mount_old},
    {"mount-new", mount_new},
    {"mount-bind", mount_bind},
    {"mount-clone-tree", clone_tree},
    {"mount-remount-writable", remount},
    {"mount-setattr-writable", set_attributes},
    {"unmount", unmount},
    {"pivot-root", pivot},
    {"chroot", change_root},
    {"unshare-user", unshare_user},
    {"unshare-mount", unshare_mount},
    {"unshare-pid", unshare_pid},
    {"unshare-net", unshare_net},
    {"unshare-ipc", unshare_ipc},
    {"unshare-uts", unshare_uts},
    {"unshare-cgroup", unshare_cgroup},
    {"unshare-time", unshare_time},
    {"clone-user", clone_user},
    {"clone-user-high-bits", clone_user_high_bits},
    {"clone3-user", clone3_user},
    {"setns", enter},
    {NULL, NULL},
};
