/* A directory of accounts, as the C library asks one (NSS): what LDAP would have, without a server. */
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <shadow.h>
#include <stdlib.h>
#include <string.h>

static const struct account {
    const char *name;
    uid_t uid;
    long expires;
} ACCOUNTS[] = {{"hf-ldap", 4005, -1}, {"hf-gone", 4006, 1}, {"hf-rooted", 0, -1}};

static const struct account *find(const char *name)
{
    for (size_t n = 0; n < sizeof ACCOUNTS / sizeof *ACCOUNTS; n++)
        if (!strcmp(ACCOUNTS[n].name, name))
            return &ACCOUNTS[n];
    return NULL;
}

static enum nss_status fill(const struct account *account, struct passwd *to)
{
    if (!account)
        return NSS_STATUS_NOTFOUND;
    *to = (struct passwd){.pw_name = (char *)account->name, .pw_passwd = "x", .pw_uid = account->uid,
        .pw_gid = account->uid, .pw_gecos = "", .pw_dir = HOME, .pw_shell = "/bin/sh"};
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_hftest_getpwnam_r(const char *name, struct passwd *to, char *buffer, size_t size, int *error)
{
    return fill(find(name), to);
}

enum nss_status _nss_hftest_getpwuid_r(uid_t uid, struct passwd *to, char *buffer, size_t size, int *error)
{
    return fill(uid == ACCOUNTS[0].uid ? &ACCOUNTS[0] : NULL, to);
}

enum nss_status _nss_hftest_getspnam_r(const char *name, struct spwd *to, char *buffer, size_t size, int *error)
{
    const struct account *account = find(name);
    if (!account)
        return NSS_STATUS_NOTFOUND;
    *to = (struct spwd){.sp_namp = (char *)account->name, .sp_pwdp = "*", .sp_lstchg = 19000, .sp_min = 0,
        .sp_max = 99999, .sp_warn = 7, .sp_inact = -1, .sp_expire = account->expires, .sp_flag = -1};
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_hftest_initgroups_dyn(const char *name, gid_t group, long *start, long *size, gid_t **groups,
    long limit, int *error)
{
    if (!find(name))
        return NSS_STATUS_NOTFOUND;
    if (*start == *size) {
        gid_t *more = realloc(*groups, 2 * *size * sizeof **groups);
        if (!more) {
            *error = ENOMEM;
            return NSS_STATUS_TRYAGAIN;
        }
        *groups = more;
        *size *= 2;
    }
    (*groups)[(*start)++] = 4105;
    return NSS_STATUS_SUCCESS;
}
