/*
 * codes.c - the rows of the table of protocol error codes (ebbgate/codes.h). Pure, any thread.
 */
#include "ebbgate/codes.h"

static const struct eg_code_info rows[EG_CODE_COUNT] = {
#define EG_CODE_ROW(name, text, step, close, http)                                                 \
    [EG_CODE_##name] = {#name, text, step, close, http},
    EG_CODES(EG_CODE_ROW)
#undef EG_CODE_ROW
};

const struct eg_code_info *eg_code_info(enum eg_code code)
{
    if ((unsigned)code >= EG_CODE_COUNT || code == EG_CODE_NONE)
        code = EG_CODE_internal;
    return &rows[code];
}
