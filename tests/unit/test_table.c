/* Lists as tables. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/table.h"

struct seen {
    int n;
    char text[16][64];
};

static void note(void *arg, struct eg_slice text)
{
    struct seen *s = arg;
    snprintf(s->text[s->n++], sizeof s->text[0], "%.*s", (int)text.n, text.p);
}

Test(table, elements)
{
    struct seen s = {0};
    eg_each_element(EG_LIT("[ {\"a\":[1,2]} , \"x,]\\\"\" ,3,[],[[4]], null ]"), note, &s);
    cr_assert_eq(s.n, 6);
    cr_assert_str_eq(s.text[0], "{\"a\":[1,2]}");
    cr_assert_str_eq(s.text[1], "\"x,]\\\"\"");
    cr_assert_str_eq(s.text[2], "3");
    cr_assert_str_eq(s.text[3], "[]");
    cr_assert_str_eq(s.text[4], "[[4]]");
    cr_assert_str_eq(s.text[5], "null");
    s.n = 0;
    eg_each_element(EG_LIT("[]"), note, &s);
    eg_each_element(EG_LIT("[ ]"), note, &s);
    eg_each_element((struct eg_slice){NULL, 0}, note, &s);
    cr_assert_eq(s.n, 0);
}

Test(table, columns_line_up)
{
    static const struct eg_column columns[] = {
        {"ID", "id", EG_COLUMN_TEXT},      {"SIZE", "bytes", EG_COLUMN_BYTES},
        {"WORKERS", "w", EG_COLUMN_COUNT}, {"AGE", "at", EG_COLUMN_AGE},
        {"NOTE", "note", EG_COLUMN_TEXT},  {NULL, NULL, EG_COLUMN_TEXT}};
    struct eg_table t = {.columns = columns};
    struct eg_buf out = {0};
    cr_assert(eg_table_row(&t,
                           EG_LIT("{\"id\":\"\xc3\xa9\xc3\xa9\xc3\xa9\",\"bytes\":1536,"
                                  "\"w\":[{},{}],\"at\":1000.5,\"note\":\"a\\nb\\u001b\"}"),
                           1090 * 1000));
    cr_assert(eg_table_row(&t, EG_LIT("{\"id\":\"x\",\"bytes\":10485760,\"w\":[],\"at\":null}"),
                           1090 * 1000));
    cr_assert(eg_table_row(&t, EG_LIT("{\"id\":7,\"bytes\":0,\"w\":[1],\"at\":0}"),
                           (int64_t)4 * 86400 * 1000));
    eg_table_print(&t, &out);
    char *text = eg_buf_take(&out);
    cr_assert_str_eq(text, "ID   SIZE  WORKERS  AGE  NOTE\n"
                           "\xc3\xa9\xc3\xa9\xc3\xa9  1.5K  2        90s  a b\xef\xbf\xbd\n"
                           "x    10M   0        -    -\n"
                           "7    0B    1        4d   -\n");
    free(text);
    eg_table_free(&t);
}

Test(table, records)
{
    struct eg_buf out = {0};
    cr_assert(eg_record_print(
        EG_LIT("{\"id\":\"a\\u001bb\",\"created\":1795417079.5,\"closed\":null,\"n\":{\"ok\":true,"
               "\"started\":0},\"none\":[],\"some\":[{\"x\":1},\"two\\nlines\"]}"),
        &out));
    char *text = eg_buf_take(&out);
    cr_assert_str_eq(text, "id         a\xef\xbf\xbd"
                           "b\n"
                           "created    2026-11-23T06:57:59.500Z\n"
                           "closed     -\n"
                           "n.ok       true\n"
                           "n.started  1970-01-01T00:00:00.000Z\n"
                           "none       -\n"
                           "some       {\"x\":1}\n"
                           "some       two lines\n");
    free(text);
}
