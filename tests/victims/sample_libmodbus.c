/* Loads the libmodbus named by argv[1] and answers requests as a Modbus/TCP server does, or with `rtu` as argv[2] as one
 * on a serial line does, over a socket pair.
 *
 * `reply FUNCTION LEN` hands modbus_reply a request with that function code and length and prints `rc N` and, in
 * hexadecimal, what arrived at the other end. Codes 5 and 6 echo the request: 400 bytes go into a stack buffer of
 * 260 (CVE-2024-10918). `register N` prints what the server holds in register N.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef void modbus;

/* As in modbus.h. */
struct mapping {
    int nb_bits, start_bits, nb_input_bits, start_input_bits;
    int nb_input_registers, start_input_registers, nb_registers, start_registers;
    uint8_t *tab_bits, *tab_input_bits;
    uint16_t *tab_input_registers, *tab_registers;
};

int main(int argc, char **argv)
{
    int rtu = argc == 3 && !strcmp(argv[2], "rtu");
    if (argc != 2 && !rtu) {
        fprintf(stderr, "usage: %s libmodbus.so.5 [rtu]\n", argv[0]);
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    modbus *(*new_tcp)(const char *, int) = dlsym(library, "modbus_new_tcp");
    modbus *(*new_rtu)(const char *, int, char, int, int) = dlsym(library, "modbus_new_rtu");
    int (*set_slave)(modbus *, int) = dlsym(library, "modbus_set_slave");
    int (*set_socket)(modbus *, int) = dlsym(library, "modbus_set_socket");
    struct mapping *(*new_mapping)(int, int, int, int) = dlsym(library, "modbus_mapping_new");
    int (*reply)(modbus *, const uint8_t *, int, struct mapping *) = dlsym(library, "modbus_reply");
    if (!new_tcp || !new_rtu || !set_slave || !set_socket || !new_mapping || !reply) {
        fprintf(stderr, "%s has no such functions\n", argv[1]);
        return 2;
    }
    int ends[2];
    modbus *context = rtu ? new_rtu("/dev/null", 9600, 'N', 8, 1) : new_tcp("127.0.0.1", 1502);
    struct mapping *map = new_mapping(16, 16, 16, 16);
    if (!context || !map || socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return 2;
    set_slave(context, 1);
    set_socket(context, ends[0]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");

    char line[128];
    unsigned transaction = 0;
    while (fgets(line, sizeof line, stdin)) {
        unsigned function, number;
        int length;
        if (sscanf(line, "reply %u %d", &function, &length) == 2 && length >= 8 && length <= 400) {
            /* With TCP: transaction, protocol 0, length of the rest. Then unit 1, function, address 2 and a value. With
             * RTU a checksum would follow, which modbus_reply leaves to its caller. */
            uint8_t request[400] = { 0 }, *unit = rtu ? request : request + 6;
            if (!rtu) {
                transaction++;
                request[0] = transaction >> 8;
                request[1] = transaction;
                request[4] = (length - 6) >> 8;
                request[5] = length - 6;
            }
            unit[0] = 1;
            unit[1] = function;
            unit[3] = 2;
            unit[4] = function == 5 ? 0xff : function == 3 ? 0 : 0x12;
            unit[5] = function == 5 ? 0 : function == 3 ? 1 : 0x34;
            int rc = reply(context, request, length, map);
            uint8_t answer[512];
            struct pollfd arrived = { .fd = ends[1], .events = POLLIN };
            ssize_t got = poll(&arrived, 1, 1000) == 1 ? read(ends[1], answer, sizeof answer) : 0;
            printf("rc %d reply ", rc);
            for (ssize_t i = 0; i < got; i++)
                printf("%02x", answer[i]);
            putchar('\n');
        } else if (sscanf(line, "register %u", &number) == 1 && number < 16) {
            printf("%04x\n", map->tab_registers[number]);
        } else {
            puts("unknown command");
        }
    }
    return 0;
}
