import { libc } from "./libc.ts";

const mallocTrim = libc.func("int malloc_trim(size_t pad)");

/**
 * Gives free pages of the C heap, of all its arenas, back to the kernel (malloc_trim(3)): glibc keeps what threads that
 * ended have freed. Takes a millisecond or a few; for idle moments.
 */
export function trimHeap(): void {
  mallocTrim(0);
}
