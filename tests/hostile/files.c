/* Files that are not the build's: reading, writing, making what gives power. */
#include "probe.h"

#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <linux/fs.h>

static int shadow(void)
{
    return open_for("/etc/shadow", O_RDONLY);
}

static int created(const char *path, int flags)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600);
    int error = errno;
    if (fd != -1)
        unlink(path);
    errno = error;
    return judge(fd);
}

static int write_usr(void)
{
    return created("/usr/.hostile", 0);
}
static int write_root(void)
{
    return created("/.hostile", 0);
}
static int write_etc(void)
{
    return created("/etc/.hostile", 0);
}
static int write_dev(void)
{
    return created("/dev/.hostile", 0);
}
static int nameless_usr(void)
{
    return judge(open("/usr", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
}
/* A program that runs somewhere is "busy", but only to those who may write it. */
static int open_program(void)
{
    return judge_past(open("/usr/bin/mount", O_WRONLY | O_CLOEXEC), ETXTBSY);
}
static int append_to_program(void)
{
    return judge_past(open("/usr/bin/env", O_WRONLY | O_APPEND | O_CLOEXEC), ETXTBSY);
}

/* Sets the times that the file has. */
static int touch_usr(void)
{
    struct stat status;
    if (stat("/usr/bin/env", &status) == -1)
        return not_tried("stat");
    struct timespec times[2] = {status.st_atim, status.st_mtim};
    return judge(utimensat(AT_FDCWD, "/usr/bin/env", times, 0));
}

static int chmod_usr(void)
{
    struct stat status;
    if (stat("/usr/bin/env", &status) == -1)
        return not_tried("stat");
    return judge(chmod("/usr/bin/env", status.st_mode & 07777));
}

static char own[] = "/tmp/hostile-file";

static int own_file(void)
{
    unlink(own);
    int fd = open(own, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    return fd;
}

static int chown_root(void)
{
    int fd = own_file();
    if (fd == -1)
        return not_tried("file");
    /* Outside the file is root's already: the way back shows the same right. */
    int verdict = judge(control ? fchown(fd, 1, 1) : fchown(fd, 0, 0));
    int error = errno;
    unlink(own);
    errno = error;
    return verdict;
}

static int attribute(const char *name, const void *value, size_t size)
{
    int fd = own_file();
    if (fd == -1)
        return not_tried("file");
    int verdict = judge(fsetxattr(fd, name, value, size, 0));
    int error = errno;
    unlink(own);
    errno = error;
    return verdict;
}

/* CAP_SYS_ADMIN as a version 2 file capability, for every user namespace. */
static int file_capability(void)
{
    uint32_t capability[5] = {0x02000001, 1u << 21, 0, 0, 0};
    return attribute("security.capability", capability, sizeof capability);
}
static int trusted_attribute(void)
{
    return attribute("trusted.overlay.opaque", "y", 1);
}

static int immutable(void)
{
    int fd = own_file();
    if (fd == -1)
        return not_tried("file");
    int flags = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == -1) {
        unlink(own);
        return not_tried("FS_IOC_GETFLAGS");
    }
    flags |= FS_IMMUTABLE_FL;
    int verdict = judge(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    int error = errno;
    flags &= ~FS_IMMUTABLE_FL;
    ioctl(fd, FS_IOC_SETFLAGS, &flags);
    unlink(own);
    errno = error;
    return verdict;
}

static int node(const char *path, mode_t mode, dev_t device)
{
    unlink(path);
    int verdict = judge(mknod(path, mode | 0600, device));
    int error = errno;
    unlink(path);
    errno = error;
    return verdict;
}

static int null_device(void)
{
    return node("/tmp/hostile-node", S_IFCHR, makedev(1, 3));
}
static int block_device(void)
{
    return node("/tmp/hostile-node", S_IFBLK, makedev(254, 0));
}

/* The one device node that needs no capability: an overlay takes it for "deleted". */
static int whiteout(void)
{
    return node("/tmp/hostile-node", S_IFCHR, makedev(0, 0));
}
static int whiteout_here(void)
{
    return node("hostile-node", S_IFCHR, makedev(0, 0));
}

/* It is left where the file was. */
static int whiteout_by_rename(void)
{
    int fd = open("/tmp/hostile-old", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd == -1)
        return not_tried("a file");
    close(fd);
    int verdict = judge(syscall(SYS_renameat2, AT_FDCWD, "/tmp/hostile-old", AT_FDCWD, "/tmp/hostile-new", 4));
    int error = errno;
    struct stat left;
    if (verdict == SUCCEEDED && (lstat("/tmp/hostile-old", &left) == -1 || !S_ISCHR(left.st_mode)))
        verdict = not_tried("no whiteout was left");
    unlink("/tmp/hostile-old");
    unlink("/tmp/hostile-new");
    errno = error;
    return verdict;
}

/* A file of the host linked into our own space could be opened later, and the other way round. */
static int hard_link_program(void)
{
    unlink("/usr/bin/hostile-link");
    int verdict = judge(link("/usr/bin/env", "/usr/bin/hostile-link"));
    int error = errno;
    unlink("/usr/bin/hostile-link");
    errno = error;
    return verdict;
}

static int home_of_root(void)
{
    return open_for("/root", O_RDONLY | O_DIRECTORY);
}
static int host_run(void)
{
    return open_for("/run/..", O_RDONLY | O_DIRECTORY) == REFUSED ? REFUSED : open_for("/var/lib", O_RDONLY | O_DIRECTORY);
}

/* Out of the root by the working directory and by descriptors of /proc. */
static int dot_dot(void)
{
    for (int level = 0; level < 64; level++)
        if (chdir("..") == -1)
            return not_tried("chdir");
    return open_for("etc/shadow", O_RDONLY);
}
static int by_proc_root(void)
{
    return open_for("/proc/self/root/etc/shadow", O_RDONLY);
}

const struct probe PROBES[] = {
    {"read-shadow", shadow},
    {"create-in-usr", write_usr},
    {"create-in-root", write_root},
    {"create-in-etc", write_etc},
    {"create-in-dev", write_dev},
    {"tmpfile-in-usr", nameless_usr},
    {"write-setuid-program", open_program},
    {"append-to-program", append_to_program},
    {"utimes-in-usr", touch_usr},
    {"chmod-in-usr", chmod_usr},
    {"chown-to-another", chown_root},
    {"file-capability", file_capability},
    {"trusted-overlay-xattr", trusted_attribute},
    {"immutable-flag", immutable},
    {"mknod-null", null_device},
    {"mknod-block", block_device},
    {"mknod-whiteout", whiteout},
    {"mknod-whiteout-in-sources", whiteout_here},
    {"rename-whiteout", whiteout_by_rename},
    {"hard-link-in-usr", hard_link_program},
    {"home-of-root", home_of_root},
    {"var-lib", host_run},
    {"dot-dot-shadow", dot_dot},
    {"proc-self-root-shadow", by_proc_root},
    {NULL, NULL},
};
