/*
 * The JSON guard as a filter for the comparison with other parsers: reads texts, each as a line
 * with its length and then its bytes, and answers one line each: "ok" or the byte and the reason.
 */
#include <stdio.h>
#include <stdlib.h>

#include "wire/json.h"

int main(void)
{
    size_t n;

    while (scanf("%zu", &n) == 1 && getchar() == '\n') {
        char *text = malloc(n + 1);
        struct eg_json_doc doc;

        if (!text || fread(text, 1, n, stdin) != n)
            return 1;
        if (eg_json_scan((struct eg_slice){text, n}, 32, &doc) == EG_OK)
            puts("ok");
        else
            printf("%zu %s\n", doc.offset, doc.reason);
        free(text);
    }
    return 0;
}
