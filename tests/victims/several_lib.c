/* The library of several.c. */
static volatile int base = 11;

int second(int x)
{
	int sum = base;

	for (int i = 0; i < x % 10; i++)
		sum += i * base;
	return sum + x * 3;
}
