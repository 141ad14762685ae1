"""Writes, from vkinfer.h, the C statements that print its structs: abi-members.py HEADER."""

import re
import sys

header = re.sub(r"/\*.*?\*/", "", open(sys.argv[1]).read(), flags=re.S)
for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", header, flags=re.S):
    print(f"STRUCT({name});")
    for member in body.split(";"):
        if found := re.search(r"(\w+)(\[\d+\])?\s*$", member):
            print(f"MEMBER({name}, {found[1]});")
