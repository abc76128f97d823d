/* flood COUNT [short]: COUNT times tries to open, in turns, a file with a short path and one with a path of 200 bytes,
 * neither of which is there; or the first one alone. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	char path[201] = "/flood/";

	memset(path + strlen(path), 'x', 200 - strlen(path));
	for (int i = 0; i < atoi(argv[1]); i++)
		open(i % 2 && argc < 3 ? path : "/flood", O_RDONLY);
	printf("done\n");
}
