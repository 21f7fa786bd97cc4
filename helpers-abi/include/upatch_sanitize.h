/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* upatch_sanitize.h: all of the sanitising headers. Functions that a patch doesn't use are not in its object. */
#ifndef UPATCH_SANITIZE_H
#define UPATCH_SANITIZE_H

#include "upatch_length.h"
#include "upatch_list.h"
#include "upatch_path.h"
#include "upatch_text.h"

#endif /* UPATCH_SANITIZE_H */
