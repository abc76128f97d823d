/* handles: opens of the file argv[1], in the file system of the folder argv[2], by its handle: 11 that succeed, and 5 by a handle of no file. Needs root. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct file_handle *handle = malloc(sizeof(*handle) + MAX_HANDLE_SZ);
	int mount, directory;

	handle->handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(AT_FDCWD, argv[1], handle, &mount, 0)) {
		perror("name_to_handle_at");
		return 1;
	}
	directory = open(argv[2], O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < 11; i++)
		close(open_by_handle_at(directory, handle, O_RDONLY | O_CLOEXEC));
	memset(handle->f_handle, 0xff, handle->handle_bytes);
	for (int i = 0; i < 5; i++)
		open_by_handle_at(directory, handle, O_RDWR);
	printf("done\n");
	return 0;
}
