/* A stand-in for libcuda.so.1, as far as one asks for the order of the devices.
 *
 * CUDA_STAND_IN_ORDER lists the last byte of each device's UUID in CUDA's order, such as "1 0"; the rest of the
 * UUID is that of nvml_stand_in.c. Without the variable cuInit fails, as it does without a driver.
 */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_DEVICE = 101, NO_DEVICE = 100 };

static long order[16];
static int count;

int cuInit(unsigned flags)
{
    (void)flags;
    char *text = getenv("CUDA_STAND_IN_ORDER");
    if (!text || getenv("CUDA_VISIBLE_DEVICES"))
        return NO_DEVICE;
    for (char *end; count < 16; text = end) {
        long device = strtol(text, &end, 10);
        if (end == text)
            break;
        order[count++] = device;
    }
    return SUCCESS;
}

int cuDeviceGetCount(int *out)
{
    *out = count;
    return SUCCESS;
}

int cuDeviceGet(int *out, int ordinal)
{
    *out = ordinal;
    return ordinal < count ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetUuid(unsigned char *out, int device)
{
    memset(out, 0, 16);
    out[3] = (unsigned char)(0xa0 + order[device]);
    out[6] = 0x40, out[8] = 0x80;
    out[15] = (unsigned char)order[device];
    return SUCCESS;
}
