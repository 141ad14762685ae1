"""The library from Python through ctypes alone: binding.py LIBRARY MODEL TEXT, where TEXT is what
`vkinfer generate` makes of the same prompt."""

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p, sizeof

library = ctypes.CDLL(sys.argv[1])
library.vkinfer_last_error.restype = c_char_p
library.vkinfer_version.restype = c_char_p


class Logprob(ctypes.Structure):
    _fields_ = [("token", c_int32), ("logprob", c_float)]


class Token(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("id", c_int32), ("session", c_void_p), ("text", c_char_p), ("text_length", c_size_t),
        ("logprob", c_float), ("top_count", c_uint32), ("top", POINTER(Logprob)),
    ]


class Generation(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("max_tokens", c_int32), ("temperature", c_float), ("top_p", c_float), ("min_p", c_float),
        ("repeat_penalty", c_float), ("presence_penalty", c_float), ("frequency_penalty", c_float),
        ("top_k", c_uint32), ("logprobs", c_int32), ("seed", c_uint64), ("ignore_end", c_int32),
        ("stop_count", c_uint32), ("stop", POINTER(c_char_p)),
    ]


class Result(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32), ("finish", c_int32), ("prompt_tokens", c_uint64), ("shared_tokens", c_uint64),
        ("generated_tokens", c_uint64), ("first_seconds", c_double), ("decode_seconds", c_double),
    ]


Callback = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(Token))


def check(status):
    if status < 0:
        raise SystemExit(f"error {status}: {library.vkinfer_last_error().decode()}")
    return status


def opened(function, *arguments):
    handle = c_void_p()
    check(function(*arguments, byref(handle)))
    return handle


def generation(**values):
    options = Generation()
    check(library.vkinfer_generation_options_default(byref(options), c_size_t(sizeof(options))))
    for name, value in values.items():
        setattr(options, name, value)
    return options


PROMPT = b"The capital of France is"
model = opened(library.vkinfer_model_open, sys.argv[2].encode())
engine = opened(library.vkinfer_engine_open, model, None)


def session(text=PROMPT):
    handle = opened(library.vkinfer_session_open, engine)
    check(library.vkinfer_session_feed_text(handle, text, c_size_t(len(text)), 1))
    return handle


# The callback sees the text that the command line gives.
pieces = []


@Callback
def collect(_, token):
    pieces.append(ctypes.string_at(token[0].text, token[0].text_length))
    return 0


run = session()
check(library.vkinfer_session_run(run, byref(generation(max_tokens=12)), collect, None))
text = b"".join(pieces).decode()
assert text.rstrip("\n") == sys.argv[3].rstrip("\n"), f"{text!r} is not {sys.argv[3]!r}"
result = Result(size=sizeof(Result))
check(library.vkinfer_session_result(run, byref(result)))
assert (result.finish, result.prompt_tokens) == (2, 5), (result.finish, result.prompt_tokens)

# Token by token, with probabilities and a stop text; the best token is the one that a greedy run takes.
stops = (c_char_p * 1)(b"\n")
poll = session()
check(library.vkinfer_session_start(poll, byref(generation(max_tokens=12, logprobs=2, stop_count=1, stop=stops))))
token, tokens, text = Token(size=sizeof(Token)), [], b""
while check(library.vkinfer_session_next(poll, -1, byref(token))) == 0:
    text += ctypes.string_at(token.text, token.text_length)
    if token.id >= 0:
        tokens.append(token.id)
        assert token.top[0].token == token.id and abs(token.top[0].logprob - token.logprob) < 1e-6
assert text == b" Paris.", text

# Logits after the prompt choose the first of them.
logits, count = (c_float * 100_000)(), c_size_t()
fresh = session()
check(library.vkinfer_session_logits(fresh, logits, c_size_t(len(logits)), byref(count)))
assert max(range(count.value), key=logits.__getitem__) == tokens[0]

assert library.vkinfer_session_close(c_void_p(12345)) == -2 and b"session" in library.vkinfer_last_error()
check(library.vkinfer_engine_close(engine))
check(library.vkinfer_model_close(model))
print(f"libvkinfer {library.vkinfer_version().decode()} through ctypes: as the command line")
