// A plugin of QEMU that counts the instructions that a program for aarch64 executes, and those that multiply and add vectors.
// It prints one line at the end: "instructions N fmla N bfmmla N".
//
// cc -shared -fPIC -O2 -DAPI=1 plugin.c -o plugin.so; qemu-aarch64 -plugin ./plugin.so PROGRAM
//
// The declarations are those of QEMU's documented plugin API, whose header few distributions install. API is the version that
// the plugin asks for, 1 to 4; each QEMU takes some of them. From 3 on, qemu_plugin_insn_data copies the data.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
typedef uint64_t plugin_id;
typedef struct tb tb;
typedef struct insn insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(tb *, void (*)(unsigned, void *), int flags, void *data);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *data);
size_t qemu_plugin_tb_n_insns(const tb *);
insn *qemu_plugin_tb_get_insn(const tb *, size_t);
void qemu_plugin_outs(const char *);
#if API >= 3
size_t qemu_plugin_insn_data(const insn *, void *, size_t);
static void word_of(const insn *i, uint32_t *word) { qemu_plugin_insn_data(i, word, 4); }
#else
const void *qemu_plugin_insn_data(const insn *);
static void word_of(const insn *i, uint32_t *word) { memcpy(word, qemu_plugin_insn_data(i), 4); }
#endif

EXPORT int qemu_plugin_version = API;

struct counts { uint64_t all, fmla, bfmmla; };
static struct counts total;

static int is(uint32_t word, uint32_t mask, uint32_t value) { return (word & mask) == value; }

static void executed(unsigned cpu, void *data)
{
    const struct counts *block = data;
    (void)cpu;
    __atomic_fetch_add(&total.all, block->all, __ATOMIC_RELAXED);
    __atomic_fetch_add(&total.fmla, block->fmla, __ATOMIC_RELAXED);
    __atomic_fetch_add(&total.bfmmla, block->bfmmla, __ATOMIC_RELAXED);
}

// A block of code is translated once or a few times; its counts live until the program ends.
static void translated(plugin_id id, tb *block)
{
    struct counts *counts = calloc(1, sizeof *counts);
    (void)id;
    if (!counts)
        abort();
    counts->all = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < counts->all; i++) {
        uint32_t word;
        word_of(qemu_plugin_tb_get_insn(block, i), &word);
        // FMLA and FMLS of f32 vectors: by vector, by element.
        counts->fmla += is(word, 0xbf60fc00, 0x0e20cc00) || is(word, 0xbfc0b400, 0x0f801000);
        counts->bfmmla += is(word, 0xffe0fc00, 0x6e40ec00);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, counts);
}

static void ended(plugin_id id, void *data)
{
    char line[128];
    (void)id, (void)data;
    snprintf(line, sizeof line, "instructions %" PRIu64 " fmla %" PRIu64 " bfmmla %" PRIu64 "\n", total.all, total.fmla,
             total.bfmmla);
    qemu_plugin_outs(line);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
