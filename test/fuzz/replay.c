/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  Stands in for libFuzzer: feeds the named files to the fuzz target.
 *
 * So the corpus is a test wherever there is a C compiler.  A target tells a
 * failure by abort().
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
	{
		FILE	   *file = fopen(argv[i], "rb");
		uint8_t    *data;
		long		size;

		if (file == NULL || fseek(file, 0, SEEK_END) != 0 ||
			(size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0)
		{
			perror(argv[i]);
			return 1;
		}

		/* no slack behind the last byte, for the address sanitizer */
		data = malloc((size_t) size);
		if ((data == NULL && size > 0) ||
			fread(data, 1, (size_t) size, file) != (size_t) size)
		{
			perror(argv[i]);
			return 1;
		}
		fclose(file);

		LLVMFuzzerTestOneInput(data, (size_t) size);
		free(data);
	}
	return 0;
}
