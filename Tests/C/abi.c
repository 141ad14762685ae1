/* Prints the layout of every struct of the header, as it is compared with abi.txt. */
#include "check.h"

#define STRUCT(type) printf("%s: %zu bytes\n", #type, sizeof(type))
#define MEMBER(type, member) \
  printf("  %s at %zu, %zu bytes\n", #member, offsetof(type, member), sizeof(((type *)0)->member))

int main(void) {
#include "abi-members.h"
  return 0;
}
