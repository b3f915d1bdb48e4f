/*
 * test_turns.c - the table of moves is the one that docs/turns.md draws.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "core/machine.h"

static unsigned state_by_name(const char *name)
{
    for (unsigned i = 0; i <= EG_TURN_ENDED; i++) {
        if (strcmp(eg_turn_state_name(i), name) == 0) {
            return i;
        }
    }
    return EG_TURN_NEVER;
}

static int input_by_name(const char *name)
{
    for (int i = 0; i < EG_TURN_INPUTS; i++) {
        if (strcmp(eg_turn_input_name((enum eg_turn_input)i), name) == 0) {
            return i;
        }
    }
    return -1;
}

Test(turns, the_drawn_moves_are_the_real_ones)
{
    char line[256], from[32], to[32], input[32];
    int drawn = 0, real = 0;
    FILE *f = fopen("docs/turns.md", "r");
    cr_assert(f != NULL);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, " %31[a-z] --> %31[a-z]: %31[a-z_]", from, to, input) != 3) {
            continue;
        }
        const int in = input_by_name(input);
        cr_assert(in >= 0, "the diagram names an input %s", input);
        cr_expect(eg_turn_move(state_by_name(from), (enum eg_turn_input)in) == state_by_name(to),
                  "%s --> %s: %s is not in the table", from, to, input);
        drawn++;
    }
    fclose(f);
    for (unsigned s = 0; s < EG_TURN_ENDED; s++) {
        for (int in = 0; in < EG_TURN_INPUTS; in++) {
            real += eg_turn_move(s, (enum eg_turn_input)in) != EG_TURN_NEVER;
        }
    }
    cr_expect_eq(drawn, real, "the diagram has %d moves, the table %d", drawn, real);
}

Test(turns, nothing_leaves_an_end)
{
    for (int in = 0; in < EG_TURN_INPUTS; in++) {
        cr_expect(eg_turn_move(EG_TURN_DEAD, (enum eg_turn_input)in) == EG_TURN_NEVER);
        cr_expect(eg_turn_move(EG_TURN_ENDED, (enum eg_turn_input)in) == EG_TURN_NEVER);
    }
}

Test(turns, what_is_no_state_has_no_moves)
{
    cr_expect(eg_turn_move(EG_TURN_ENDED, EG_IN_FINAL) == EG_TURN_NEVER);
    cr_expect_str_eq(eg_turn_state_name(EG_TURN_ENDED + 1), "unknown");
}
