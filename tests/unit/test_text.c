/* Text of commands and of strangers, made safe for JSON and for terminals. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "app/text.h"
#include "wire/json.h"

#define R "\xef\xbf\xbd"

static void cleans_to(const char *in, size_t n, const char *want)
{
    struct eg_buf b = {0};
    size_t offset;
    cr_assert_eq(eg_text_clean(&b, in, n, true), n);
    cr_assert(eg_slice_is((struct eg_slice){b.p, b.n}, want), "got %.*s", (int)b.n, b.p);
    cr_assert(eg_utf8_valid((struct eg_slice){b.p, b.n}, &offset));
    eg_buf_free(&b);
}

Test(text, clean_keeps_what_is_good)
{
    cleans_to("plain", 5, "plain");
    cleans_to("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    cleans_to("\x1b[31m\t\n", 7, "\x1b[31m\t\n");
}

Test(text, clean_replaces_what_is_not)
{
    cleans_to("a\0b", 3, "a" R "b");
    cleans_to("\xff", 1, R);
    cleans_to("\xc3(", 2, R "(");
    cleans_to("\xc0\x80", 2, R R);
    cleans_to("\xed\xa0\x80", 3, R R R);
    cleans_to("\xf4\x90\x80\x80", 4, R R R R);
    cleans_to("\xe2\x82", 2, R R);
    cleans_to("x\x80y", 3, "x" R "y");
}

/* Whatever way the bytes are cut into pieces, the text is the same as in one piece. */
Test(text, clean_in_pieces)
{
    static const char in[] = "a\xc3\xa9"
                             "b\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\xf4\x8f\xbf\xbf\xf0\x90\x80"
                             "\x80\xe0\xa0\x80"
                             "\xe2\x82x\xf0\x9fz\xc3";
    size_t n = sizeof in - 1;
    struct eg_buf whole = {0};
    cr_assert_eq(eg_text_clean(&whole, in, n, true), n);
    for (size_t piece = 1; piece < n; piece++) {
        struct eg_buf out = {0}, carry = {0};
        for (size_t at = 0; at < n; at += piece) {
            size_t k = n - at < piece ? n - at : piece;
            eg_buf_add(&carry, in + at, k);
            size_t used = eg_text_clean(&out, carry.p, carry.n, at + k == n);
            cr_assert(carry.n - used <= 3);
            memmove(carry.p, carry.p + used, carry.n - used);
            carry.n -= used;
        }
        cr_assert(eg_slice_eq((struct eg_slice){out.p, out.n}, (struct eg_slice){whole.p, whole.n}),
                  "pieces of %zu: %.*s", piece, (int)out.n, out.p);
        eg_buf_free(&out);
        eg_buf_free(&carry);
    }
    eg_buf_free(&whole);
}

Test(text, nothing_acts_on_the_terminal)
{
    struct eg_buf b = {0};
    eg_text_show(&b, eg_slice_cstr("a\x1b[2Jb\rc\x07\td\n\xc2\x9b"
                                   "e\xe2\x80\xae"
                                   "f\xe2\x81\xa6"
                                   "g\x7f\xc3\xa9"));
    cr_assert(eg_slice_is((struct eg_slice){b.p, b.n},
                          "a" R "[2Jb" R "c" R "\td\n" R "e" R "f" R "g" R "\xc3\xa9"));
    eg_buf_free(&b);
}
