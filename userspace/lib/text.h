/* SPDX-License-Identifier: GPL-2.0-only */
/* Strings that come from an image, made harmless in place, byte by byte: lengths stay. */
#ifndef QCOW_LIB_TEXT_H
#define QCOW_LIB_TEXT_H

/* What is not UTF-8 becomes '?': JSON must be valid whatever an image is named. */
void qcow_text_utf8(char *text);

/* Also control characters, C1 ones included: text must not drive a terminal or split a log line. */
void qcow_text_clean(char *text);

#endif
