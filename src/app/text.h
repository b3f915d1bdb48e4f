/*
 * text.h - text from and for the outside world made safe. Pure.
 */
#ifndef EG_APP_TEXT_H
#define EG_APP_TEXT_H

#include "base/bytes.h"

/*
 * Appends p as UTF-8 without NUL: what is neither becomes U+FFFD. Returns how many bytes were
 * taken: all when last, else all but a character that is not complete yet (at most 3 bytes).
 */
size_t eg_text_clean(struct eg_buf *out, const char *p, size_t n, bool last);
/*
 * Appends UTF-8 text for a terminal: control characters but newline and tab, and those that turn
 * the direction of text, become U+FFFD, so that content cannot act on the terminal.
 */
void eg_text_show(struct eg_buf *out, struct eg_slice text);

/*
 * How many single changes (insert, remove, replace, swap of neighbours) make b of a; - and _ are
 * the same. Texts longer than 48 bytes are cut, which only makes them less near.
 */
size_t eg_text_distance(const char *a, const char *b);

#endif
