/* A switch, as clang makes it of ifs and tables. */
#include "upatch.h"

UPATCH_COUNTER(__u64, by_command[8]);

static int class_of(unsigned int command)
{
	switch (command) {
	case 1: return 0;
	case 2: return 5;
	case 3: return 3;
	case 17: return 7;
	case 18: return 2;
	case 255: return 1;
	case 1000: return 4;
	default: return 6;
	}
}

static int dense(unsigned int command)
{
	switch (command) {
	case 0: return 11;
	case 1: return 5;
	case 2: return 9;
	case 3: return 42;
	case 4: return 7;
	case 5: return 77;
	default: return 1;
	}
}

SEC("upatch/exe:dispatch")
int UPATCH(classify, unsigned int command)
{
	UPATCH_INC(by_command[class_of(command)]);
	if (dense(command) == 42)
		return upatch_return(ctx, -95);
	return UPATCH_CONTINUE;
}
