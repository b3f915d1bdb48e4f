/*
 * settings.c - the table of settings as a list for ebbgate.conf(5), on stdout.
 *
 * Runs while the manual pages are built, so that a setting cannot be missing there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "app/setting.h"

/* A text as mdoc reads it. */
static void print_text(const char *s)
{
    for (; *s; s++)
        printf(*s == '\\' ? "\\e" : *s == '-' ? "\\-" : "%c", *s);
}

/* How a value of the type is called, what it is by default and, of numbers, how much it may be. */
static int print_value(const struct eg_setting *d)
{
    static const char *const kinds[] = {
        [EG_SETTING_INT] = "number", [EG_SETTING_SIZE] = "size",
        [EG_SETTING_DUR] = "time",   [EG_SETTING_STR] = "text",
        [EG_SETTING_BOOL] = "text",  [EG_SETTING_LIST] = "list of texts"};
    struct eg_buf b = {0};
    printf("%s, default ", kinds[d->type]);
    if (d->type == EG_SETTING_LIST) {
        printf("[]");
    } else if (d->type == EG_SETTING_STR || d->type == EG_SETTING_BOOL) {
        printf("\\(dq");
        print_text(d->type == EG_SETTING_STR ? d->def_text : d->def ? "true" : "false");
        printf("\\(dq");
    } else {
        eg_setting_print_number(d, d->def, &b);
        eg_buf_str(&b, ", ");
        eg_setting_print_number(d, d->min, &b);
        eg_buf_str(&b, " to ");
        eg_setting_print_number(d, d->max, &b);
    }
    char *const numbers = eg_buf_take(&b);
    printf("%s", numbers ? numbers : "");
    free(numbers);
    return numbers != NULL;
}

int main(void)
{
    int whole = 1;
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *const d = &eg_setting_table[i];
        printf(".It Va %s\n.Pq ", d->name);
        whole = print_value(d) && whole;
        printf("\n.br\n");
        print_text(d->help);
        printf(".\n%s", d->reloadable ? "" : "Takes a restart.\n");
    }
    return ferror(stdout) || fflush(stdout) || !whole;
}
