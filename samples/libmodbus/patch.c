/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Answers single writes of a wrong length with an exception, as the fixed libmodbus does (CVE-2024-10918). See README.md. */
#include "upatch.h"

/* Debian's libmodbus5 3.1.6-2.1, amd64 */
UPATCH_BUILD_ID("ce1038db8fc33e013468c5348c10e89828dec1d4");

#define WRITE_SINGLE_COIL 5
#define WRITE_SINGLE_REGISTER 6
#define ILLEGAL_DATA_VALUE 3

/* What stands before the function code: a unit address, and with TCP six bytes more. */
#define RTU_HEADER 1
/* The function code, an address and a value; with RTU a checksum follows. */
#define SINGLE_WRITE 5
#define RTU_CHECKSUM 2

UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, refused);

extern int modbus_get_header_length(void *modbus) __ksym;
extern int modbus_reply_exception(void *modbus, const __u8 *request, unsigned int code) __ksym;

SEC("upatch/libmodbus.so.5:modbus_reply")
int UPATCH(check_single_writes, void *modbus, const __u8 *request, int length)
{
	int header, expected;
	__u8 function;

	UPATCH_INC(hits);
	header = modbus_get_header_length(modbus);
	if (bpf_probe_read_user(&function, sizeof(function), request + header))
		return UPATCH_CONTINUE;
	if (function != WRITE_SINGLE_COIL && function != WRITE_SINGLE_REGISTER)
		return UPATCH_CONTINUE;
	expected = header + SINGLE_WRITE + (header == RTU_HEADER ? RTU_CHECKSUM : 0);
	if (length == expected)
		return UPATCH_CONTINUE;
	UPATCH_INC(refused);
	return upatch_return(ctx, modbus_reply_exception(modbus, request, ILLEGAL_DATA_VALUE));
}
