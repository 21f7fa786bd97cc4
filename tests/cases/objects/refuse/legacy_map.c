// refused: map `old` (legacy): upatch has no maps, only the arena
#include "upatch.h"
struct old_map { unsigned int type, key, value, entries; };
struct old_map SEC("maps") old = { 1, 4, 8, 16 };
SEC("uprobe/exe:f") int f(void *ctx) { return 0; }
