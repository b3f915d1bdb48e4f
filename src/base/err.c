#include "base/err.h"

const char *eg_err_text(enum eg_err e)
{
    static const char *const text[] = {
#define EG_ERR_TEXT(name, words) words,
        EG_ERRS(EG_ERR_TEXT)
#undef EG_ERR_TEXT
    };
    if ((unsigned)e >= sizeof text / sizeof text[0]) {
        return "unknown error";
    }
    return text[e];
}
