// SPDX-License-Identifier: BSD-2-Clause
// The intrusive list.
#include "base/list.h"

#include <criterion/criterion.h>

struct item {
    int number;
    struct list link;
};

static struct list head = { &head, &head };
static struct item items[5];

// The numbers in order, checked in both directions.
static void check_order(const struct list *on, const char *expected) {
    char forward[16] = "", backward[16] = "";
    size_t n = 0;
    for (struct list *link = on->next; link != on; link = link->next)
        forward[n++] = (char)('0' + container_of(link, struct item, link)->number);
    for (struct list *link = on->prev; link != on; link = link->prev)
        backward[--n] = (char)('0' + container_of(link, struct item, link)->number);
    cr_assert_str_eq(forward, expected);
    cr_assert_str_eq(backward, expected);
    cr_assert_eq(list_empty(on), expected[0] == 0);
}

static void fill(void) {
    for (int i = 0; i < 5; i++) {
        items[i].number = i;
        list_init(&items[i].link);
        cr_assert_not(list_linked(&items[i].link));
        list_push_back(&head, &items[i].link);
        cr_assert(list_linked(&items[i].link));
    }
}

Test(list, pushes_at_both_ends) {
    check_order(&head, "");
    fill();
    check_order(&head, "01234");
    list_remove(&items[3].link);
    list_push_front(&head, &items[3].link);
    check_order(&head, "30124");
}

Test(list, removing_twice_is_harmless) {
    fill();
    list_remove(&items[0].link);
    list_remove(&items[0].link);
    list_remove(&items[4].link);
    cr_assert_not(list_linked(&items[4].link));
    check_order(&head, "123");
}

Test(list, splicing_moves_everything_to_the_end) {
    struct list other;
    list_init(&other);
    fill();
    list_splice(&head, &other);
    check_order(&head, "01234");
    list_splice(&other, &head);
    check_order(&head, "");
    check_order(&other, "01234");
    list_remove(&items[2].link);
    list_push_back(&head, &items[2].link);
    list_splice(&head, &other);
    check_order(&head, "20134");
    check_order(&other, "");
}

Test(list, the_current_link_may_be_removed_while_walking) {
    fill();
    int sum = 0;
    list_each(link, &head) {
        struct item *item = container_of(link, struct item, link);
        sum += item->number;
        if (item->number % 2 == 0) {
            list_remove(link);
            item->number = -100;
        }
    }
    cr_assert_eq(sum, 10);
    check_order(&head, "13");
}
