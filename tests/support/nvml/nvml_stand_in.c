/* A stand-in for libnvidia-ml.so.1, scripted by a file. README.md beside it describes the file.
 *
 * Structures and codes follow nvml.h. The lock is never held while a call hangs, so that, as in a driver,
 * one stuck device does not stop the others.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef unsigned long long u64;
typedef int nvmlReturn_t;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, UNKNOWN = 999
};
enum { MAX_DEVICES = 16, MAX_INSTANCES = 7, MAX_RULES = 512, MAX_VALUES = 16, MAX_PROCESSES = 256, ANY = -1, WHOLE = -1 };
enum verb { VALUE, SERIES, ERROR, HANG, SLOW };

typedef struct handle {
    int session, device, instance;
} *nvmlDevice_t;

struct rule {
    char call[64];
    int any_device, device, instance;
    enum verb verb;
    u64 values[MAX_VALUES];
    int count;
    int used; /* answers given, for a series */
};
struct process {
    int device, instance, graphics;
    unsigned pid;
    u64 bytes;
};
struct word {
    char kind[8], text[96];
    int device, instance;
};
struct script {
    int devices, broken_sessions, rules_count, processes_count, words_count;
    int instances[MAX_DEVICES];
    struct rule rules[MAX_RULES];
    struct process processes[MAX_PROCESSES];
    struct word words[64];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct script script, next_script;
static struct stat seen;
static int opens, session;
/* Two generations of handles, so that one kept over a shutdown is noticed. */
static struct handle handles[2][MAX_DEVICES][MAX_INSTANCES + 1];

static int parse_device(const char *text, int *device, int *instance)
{
    *instance = WHOLE;
    *device = ANY;
    if (strcmp(text, "*") == 0)
        return 1;
    sscanf(text, "%d:%d", device, instance);
    return 0;
}

static void parse_rule(struct script *into, const char *call, const char *device, char *rest)
{
    struct rule *rule = &into->rules[into->rules_count];
    char verb[16] = "";
    int offset = 0;
    if (into->rules_count >= MAX_RULES || sscanf(rest, "%15s%n", verb, &offset) != 1)
        return;
    memset(rule, 0, sizeof *rule);
    snprintf(rule->call, sizeof rule->call, "%s", call);
    rule->any_device = parse_device(device, &rule->device, &rule->instance);
    rule->verb = !strcmp(verb, "series") ? SERIES : !strcmp(verb, "error") ? ERROR : !strcmp(verb, "hang") ? HANG
               : !strcmp(verb, "slow") ? SLOW : VALUE;
    for (char *word = strtok(rest + offset, " \n"); word && rule->count < MAX_VALUES; word = strtok(NULL, " \n"))
        rule->values[rule->count++] = word[0] == '-' ? (u64)strtoll(word, NULL, 0) : strtoull(word, NULL, 0);
    into->rules_count++;
}

static void parse_line(struct script *into, char *line)
{
    char first[64] = "", second[64] = "";
    int offset = 0, device, instance;
    if (sscanf(line, "%63s%n", first, &offset) != 1 || first[0] == '#')
        return;
    char *rest = line + offset;
    if (!strcmp(first, "devices")) {
        sscanf(rest, "%d", &into->devices);
        return;
    }
    if (!strcmp(first, "broken_sessions")) {
        sscanf(rest, "%d", &into->broken_sessions);
        return;
    }
    if (sscanf(rest, "%63s%n", second, &offset) != 1)
        return;
    rest += offset;
    parse_device(second, &device, &instance);
    if (!strcmp(first, "mig") && device >= 0 && device < MAX_DEVICES) {
        sscanf(rest, "%d", &into->instances[device]);
    } else if (!strcmp(first, "process") && into->processes_count < MAX_PROCESSES) {
        struct process *process = &into->processes[into->processes_count++];
        process->device = device, process->instance = instance;
        process->graphics = strstr(rest, "graphics") != NULL;
        sscanf(rest, "%u %llu", &process->pid, &process->bytes);
    } else if ((!strcmp(first, "uuid") || !strcmp(first, "name") || !strcmp(first, "pci")) && into->words_count < 64) {
        struct word *word = &into->words[into->words_count++];
        snprintf(word->kind, sizeof word->kind, "%.7s", first);
        word->device = device, word->instance = instance;
        sscanf(rest, " %95[^\n]", word->text);
    } else {
        parse_rule(into, first, second, rest);
    }
}

/* Read the script again if it changed; a series goes on where it was as long as its line stays. */
static void reload(void)
{
    const char *path = getenv("NVML_STAND_IN_SCRIPT");
    struct stat now;
    char line[512];
    if (!path || stat(path, &now) != 0)
        return;
    if (now.st_ino == seen.st_ino && now.st_size == seen.st_size && now.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    memset(&next_script, 0, sizeof next_script);
    while (fgets(line, sizeof line, file))
        parse_line(&next_script, line);
    fclose(file);
    for (int i = 0; i < next_script.rules_count; i++)
        for (int j = 0; j < script.rules_count; j++) {
            struct rule *new = &next_script.rules[i], *old = &script.rules[j];
            if (!strcmp(new->call, old->call) && new->device == old->device && new->instance == old->instance &&
                new->count == old->count && !memcmp(new->values, old->values, sizeof new->values))
                new->used = old->used;
        }
    script = next_script;
    seen = now;
}

static void log_call(const char *call, int device, int instance)
{
    const char *path = getenv("NVML_STAND_IN_LOG");
    char line[128];
    if (!path)
        return;
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        return;
    int length = device < 0 ? snprintf(line, sizeof line, "%s -\n", call)
               : instance < 0 ? snprintf(line, sizeof line, "%s %d\n", call, device)
                              : snprintf(line, sizeof line, "%s %d:%d\n", call, device, instance);
    if (write(file, line, (size_t)length) != length)
        abort();
    close(file);
}

static struct rule *rule_for(const char *call, int device, int instance)
{
    for (int i = script.rules_count - 1; i >= 0; i--) {
        struct rule *rule = &script.rules[i];
        int fits_call = !strcmp(rule->call, "*") || !strcmp(rule->call, call);
        int fits_device = rule->any_device || (rule->device == device && rule->instance == instance);
        if (fits_call && fits_device)
            return rule;
    }
    return NULL;
}

/* Answer a call of a device (or of none, ANY) from its rule: *values* holds the usual numbers and gets the scripted. */
static nvmlReturn_t answer(const char *call, int device, int instance, u64 *values, int count)
{
    nvmlReturn_t result = SUCCESS;
    unsigned slow_ms = 0;
    log_call(call, device, instance);
    for (;;) {
        pthread_mutex_lock(&lock);
        reload();
        int is_init = !strcmp(call, "nvmlInitWithFlags");
        struct rule *rule = rule_for(call, device, instance);
        int hangs = rule && rule->verb == HANG;
        if (!is_init && opens == 0) {
            result = UNINITIALIZED, hangs = 0;
        } else if (!is_init && strcmp(call, "nvmlShutdown") && session <= script.broken_sessions) {
            result = UNKNOWN, hangs = 0;
        } else if (rule && rule->verb == ERROR) {
            result = (nvmlReturn_t)rule->values[0];
        } else if (rule && rule->verb == SLOW) {
            slow_ms = (unsigned)rule->values[0];
        } else if (rule && rule->verb == SERIES && count > 0 && rule->count > 0) {
            int place = rule->used < rule->count ? rule->used++ : rule->count - 1;
            for (int i = 0; i < count; i++)
                values[i] = i == 0 ? rule->values[place] : values[i];
        } else if (rule && rule->verb == VALUE) {
            for (int i = 0; i < count && i < rule->count; i++)
                values[i] = rule->values[i];
        }
        pthread_mutex_unlock(&lock);
        if (!hangs)
            break;
        usleep(5000);
    }
    if (slow_ms)
        usleep(slow_ms * 1000);
    return result;
}

/* Calls that a MIG instance answers; of the rest NVML says that the handle is no argument for them. */
static int is_for_instances(const char *call)
{
    static const char *const names[] = {
        "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetName",
        "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId",
        "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], call))
            return 1;
    return 0;
}

static nvmlReturn_t answer_for(const char *call, nvmlDevice_t handle, u64 *values, int count)
{
    if (!handle || handle->session != session)
        return opens ? INVALID_ARGUMENT : UNINITIALIZED;
    nvmlReturn_t result = answer(call, handle->device, handle->instance, values, count);
    if (result == SUCCESS && handle->instance >= 0 && !is_for_instances(call))
        return INVALID_ARGUMENT;
    return result;
}

static nvmlReturn_t one_number(const char *call, nvmlDevice_t handle, u64 usual, unsigned *out)
{
    u64 value = usual;
    nvmlReturn_t result = answer_for(call, handle, &value, 1);
    if (result == SUCCESS)
        *out = (unsigned)value;
    return result;
}

static void word_of(const char *kind, int device, int instance, char *out, size_t size)
{
    pthread_mutex_lock(&lock);
    if (!strcmp(kind, "name"))
        snprintf(out, size, instance < 0 ? "NVIDIA Stand-in" : "NVIDIA Stand-in MIG 1g.10gb");
    else if (!strcmp(kind, "pci"))
        snprintf(out, size, "00000000:%02X:00.0", 0x07 + device);
    else if (instance < 0)
        snprintf(out, size, "GPU-%08x-0000-4000-8000-%012x", 0xa0 + device, device);
    else
        snprintf(out, size, "MIG-%08x-0000-4000-8000-%012x", 0xb0 + device, instance);
    for (int i = 0; i < script.words_count; i++) {
        struct word *word = &script.words[i];
        if (!strcmp(word->kind, kind) && word->device == device && word->instance == instance)
            snprintf(out, size, "%s", word->text);
    }
    pthread_mutex_unlock(&lock);
}

static nvmlDevice_t handle_of(int device, int instance)
{
    nvmlDevice_t handle = &handles[session % 2][device][instance + 1];
    handle->session = session, handle->device = device, handle->instance = instance;
    return handle;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    nvmlReturn_t result = answer("nvmlInitWithFlags", ANY, WHOLE, NULL, 0);
    pthread_mutex_lock(&lock);
    if (result == SUCCESS && opens++ == 0)
        session++;
    pthread_mutex_unlock(&lock);
    return result;
}

nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t result = answer("nvmlShutdown", ANY, WHOLE, NULL, 0);
    pthread_mutex_lock(&lock);
    if (result == SUCCESS && opens > 0 && --opens == 0)
        memset(handles[session % 2], 0, sizeof handles[0]);
    pthread_mutex_unlock(&lock);
    return result;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    (void)result;
    return "an error of the stand-in";
}

static nvmlReturn_t system_text(const char *call, const char *text, char *out, unsigned size)
{
    nvmlReturn_t result = answer(call, ANY, WHOLE, NULL, 0);
    if (result == SUCCESS)
        snprintf(out, size, "%s", text);
    return result;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    return system_text("nvmlSystemGetDriverVersion", "570.00.01", out, size);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned size)
{
    return system_text("nvmlSystemGetNVMLVersion", "12.570.00.01", out, size);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    *out = 12080;
    return answer("nvmlSystemGetCudaDriverVersion_v2", ANY, WHOLE, NULL, 0);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *out)
{
    u64 value;
    pthread_mutex_lock(&lock);
    reload();
    value = (u64)script.devices;
    pthread_mutex_unlock(&lock);
    nvmlReturn_t result = answer("nvmlDeviceGetCount_v2", ANY, WHOLE, &value, 1);
    *out = (unsigned)value;
    return result;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out)
{
    if ((int)index >= script.devices)
        return opens ? INVALID_ARGUMENT : UNINITIALIZED;
    nvmlReturn_t result = answer("nvmlDeviceGetHandleByIndex_v2", (int)index, WHOLE, NULL, 0);
    if (result == SUCCESS)
        *out = handle_of((int)index, WHOLE);
    return result;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    char known[96];
    for (int device = 0; device < script.devices; device++)
        for (int instance = WHOLE; instance < script.instances[device]; instance++) {
            word_of("uuid", device, instance, known, sizeof known);
            if (strcmp(known, uuid))
                continue;
            nvmlReturn_t result = answer("nvmlDeviceGetHandleByUUID", device, instance, NULL, 0);
            if (result == SUCCESS)
                *out = handle_of(device, instance);
            return result;
        }
    return answer("nvmlDeviceGetHandleByUUID", ANY, WHOLE, NULL, 0) ? UNINITIALIZED : NOT_FOUND;
}

static nvmlReturn_t text_of(const char *call, const char *kind, nvmlDevice_t handle, char *out, unsigned size)
{
    nvmlReturn_t result = answer_for(call, handle, NULL, 0);
    if (result == SUCCESS)
        word_of(kind, handle->device, handle->instance, out, size);
    return result;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *out, unsigned size)
{
    return text_of("nvmlDeviceGetUUID", "uuid", handle, out, size);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *out, unsigned size)
{
    return text_of("nvmlDeviceGetName", "name", handle, out, size);
}

struct pci {
    char legacy_bus_id[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, struct pci *out)
{
    memset(out, 0, sizeof *out);
    return text_of("nvmlDeviceGetPciInfo_v3", "pci", handle, out->bus_id, sizeof out->bus_id);
}

struct utilization {
    unsigned gpu, memory;
};

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, struct utilization *out)
{
    u64 values[2] = {handle ? (u64)(10 * handle->device) : 0, 5};
    nvmlReturn_t result = answer_for("nvmlDeviceGetUtilizationRates", handle, values, 2);
    if (result == SUCCESS && script.instances[handle->device] > 0)
        return NOT_SUPPORTED;
    out->gpu = (unsigned)values[0], out->memory = (unsigned)values[1];
    return result;
}

static const u64 GIB = 1ull << 30;

static nvmlReturn_t memory_of(const char *call, nvmlDevice_t handle, u64 values[3])
{
    int instance = handle ? handle->instance : WHOLE, device = handle ? handle->device : 0;
    values[0] = instance < 0 ? (u64)(device + 1) * GIB : (u64)(instance + 1) * GIB / 4;
    values[1] = instance < 0 ? 80 * GIB : 10 * GIB;
    values[2] = GIB / 2;
    return answer_for(call, handle, values, 3);
}

struct memory_v1 {
    u64 total, free, used;
};
struct memory_v2 {
    unsigned version;
    u64 total, reserved, free, used;
};

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, struct memory_v1 *out)
{
    u64 values[3];
    nvmlReturn_t result = memory_of("nvmlDeviceGetMemoryInfo", handle, values);
    out->used = values[0] + values[2], out->total = values[1], out->free = out->total - out->used;
    return result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, struct memory_v2 *out)
{
    u64 values[3];
    if (out->version != (sizeof *out | 2u << 24))
        return 25; /* ARGUMENT_VERSION_MISMATCH */
    nvmlReturn_t result = memory_of("nvmlDeviceGetMemoryInfo_v2", handle, values);
    out->used = values[0], out->total = values[1], out->reserved = values[2];
    out->free = out->total - out->used - out->reserved;
    return result;
}

struct temperature {
    unsigned version, sensor;
    int celsius;
};

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t handle, struct temperature *out)
{
    if (out->version != (sizeof *out | 1u << 24))
        return 25;
    return one_number("nvmlDeviceGetTemperatureV", handle, handle ? 40 + (u64)handle->device : 0, (unsigned *)&out->celsius);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, unsigned sensor, unsigned *out)
{
    (void)sensor;
    return one_number("nvmlDeviceGetTemperature", handle, handle ? 40 + (u64)handle->device : 0, out);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t handle, unsigned *out)
{
    return one_number("nvmlDeviceGetPowerUsage", handle, 100000 + 1000 * (u64)(handle ? handle->device : 0), out);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t handle, unsigned *out)
{
    return one_number("nvmlDeviceGetEnforcedPowerLimit", handle, 400000, out);
}

/* Answer one of two numbers of a call that takes a selector. */
static nvmlReturn_t selected(const char *call, nvmlDevice_t handle, u64 first, u64 second, int want_second, u64 *out)
{
    u64 values[2] = {first, second};
    nvmlReturn_t result = answer_for(call, handle, values, 2);
    *out = values[want_second];
    return result;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t handle, unsigned type, unsigned *out)
{
    u64 value;
    nvmlReturn_t result = selected("nvmlDeviceGetClockInfo", handle, 1410, 1593, type == 2, &value);
    *out = (unsigned)value;
    return result;
}

static nvmlReturn_t reasons(const char *call, nvmlDevice_t handle, u64 *out)
{
    u64 value = 0x4;
    nvmlReturn_t result = answer_for(call, handle, &value, 1);
    *out = value;
    return result;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t handle, u64 *out)
{
    return reasons("nvmlDeviceGetCurrentClocksEventReasons", handle, out);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t handle, u64 *out)
{
    return reasons("nvmlDeviceGetCurrentClocksThrottleReasons", handle, out);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, unsigned type, unsigned counter, u64 *out)
{
    (void)counter;
    return selected("nvmlDeviceGetTotalEccErrors", handle, 2, 0, type == 1, out);
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t handle, unsigned counter, unsigned *out)
{
    u64 value;
    nvmlReturn_t result = selected("nvmlDeviceGetPcieThroughput", handle, 1000, 2000, counter == 1, &value);
    *out = (unsigned)value;
    return result;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned *current, unsigned *pending)
{
    u64 value = handle && script.instances[handle->device] > 0;
    nvmlReturn_t result = answer_for("nvmlDeviceGetMigMode", handle, &value, 1);
    *current = *pending = (unsigned)value;
    return result;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned *out)
{
    return one_number("nvmlDeviceGetMaxMigDeviceCount", handle, MAX_INSTANCES, out);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned index, nvmlDevice_t *out)
{
    nvmlReturn_t result = answer_for("nvmlDeviceGetMigDeviceHandleByIndex", handle, NULL, 0);
    if (result == SUCCESS && (int)index >= script.instances[handle->device])
        return NOT_FOUND;
    if (result == SUCCESS)
        *out = handle_of(handle->device, (int)index);
    return result;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned *out)
{
    return one_number("nvmlDeviceGetGpuInstanceId", handle, handle ? 7 + (u64)handle->instance : 0, out);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned *out)
{
    return one_number("nvmlDeviceGetComputeInstanceId", handle, 0, out);
}

struct process_info {
    unsigned pid;
    u64 bytes;
    unsigned gpu_instance, compute_instance;
};

static nvmlReturn_t processes(const char *call, nvmlDevice_t handle, int graphics, unsigned *count, struct process_info *out)
{
    unsigned found = 0, room = *count;
    nvmlReturn_t result = answer_for(call, handle, NULL, 0);
    if (result != SUCCESS)
        return result;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < script.processes_count; i++) {
        struct process *process = &script.processes[i];
        if (process->device != handle->device || process->instance != handle->instance || process->graphics != graphics)
            continue;
        if (out && found < room)
            out[found] = (struct process_info){process->pid, process->bytes, ~0u, ~0u};
        found++;
    }
    pthread_mutex_unlock(&lock);
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, struct process_info *out)
{
    return processes("nvmlDeviceGetComputeRunningProcesses_v3", handle, 0, count, out);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, struct process_info *out)
{
    return processes("nvmlDeviceGetGraphicsRunningProcesses_v3", handle, 1, count, out);
}
