// PCRE2 names its functions by the width of a code unit; UTF-8 needs the 8-bit library.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
