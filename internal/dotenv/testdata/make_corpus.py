#!/usr/bin/python3
"""Writes corpus.json: .env files and what python-dotenv makes of each.

Run with a Python that has python-dotenv (Debian: python3-dotenv):

    /usr/bin/python3 make_corpus.py > corpus.json

Every case is written to a real file and read with override=False, as a program
that calls load_dotenv() does, under an environment of exactly the variables given.
"""

import json
import logging
import os
import sys
import tempfile

from dotenv.main import DotEnv
from dotenv.parser import parse_stream
from dotenv.version import __version__

logging.disable(logging.CRITICAL)

EXT = {"EXT": "outside"}

# (name, text, environment)
CASES = []


def case(name, text, env=None):
    CASES.append((name, text, EXT if env is None else env))


# Plain definitions.
case("empty file", "")
case("only newlines", "\n\n\n")
case("only spaces", "   ")
case("plain", "A=1\n")
case("no newline at the end", "A=1")
case("two lines", "A=1\nB=2\n")
case("blank lines between", "A=1\n\n\nB=2\n\n")
case("spaces around the equals sign", "A = 1\n")
case("tabs around the equals sign", "A\t=\t1\n")
case("leading spaces", "   A=1\n")
case("trailing spaces", "A=1   \n")
case("trailing tab", "A=1\t\n")
case("inner spaces", "A=one two  three\n")
case("empty value", "A=\nB=2\n")
case("empty value at the end", "A=")
case("empty value with spaces", "A=   \nB=2\n")
case("bare name", "A\nB=2\n")
case("bare name at the end", "A")
case("bare name with spaces", "A   \nB=1\n")
case("bare name hides the earlier value", "A=1\nA\n")
case("value after a bare name", "A\nA=1\n")
case("last definition wins", "A=1\nA=2\n")
case("order stays that of the first definition", "A=1\nB=2\nA=3\n")
case("lower case name", "abc=1\n")
case("dots and dashes in the name", "a.b-c=1\n")
case("digits first in the name", "1A=1\n")
case("unicode name", "\u00fc\u00f1=1\n")
case("unicode value", "A=gr\u00fc\u00df dich \U0001f600\n")
case("name of odd signs", "A$%&*=1\n")
case("colon instead of equals", "A: 1\nB=2\n")
case("equals signs in the value", "A=b=c==\n")
case("base64 value", "A=aGVsbG8gd29ybGQ=\n")
case("url with query and fragment", "A=https://u:p@h:1/x?y=1&z=2#frag\n")
case("json value without quotes", 'A={"a": 1, "b": [2]}\n')
case("dsn with signs", "A=postgres://u:p%40ss@h/db?sslmode=disable\n")

# export.
case("export", "export A=1\n")
case("export with tab", "export\tA=1\n")
case("export with more spaces", "  export   A=1\n")
case("export of a bare name", "export A\nB=1\n")
case("export alone", "export\nA=1\n")
case("export as a name", "export=1\n")
case("export as a name with spaces", "export =1\nA=2\n")
case("name that begins with export", "exportA=1\n")
case("export before a comment", "export # nothing\nA=1\n")
case("export before a quoted name", "export 'A'=1\n")
case("export twice", "export export A=1\nB=2\n")

# Comments.
case("comment line", "# c\nA=1\n")
case("indented comment line", "   # c\nA=1\n")
case("comment at the end", "A=1\n# c")
case("comment after a value", "A=1 # c\n")
case("comment after a tab", "A=1\t# c\n")
case("hash without space is value", "A=1#c\n")
case("hash as the whole value", "A=#c\n")
case("hash after equals and space", "A= # c\n")
case("second hash begins the comment", "A=1#2 #3\n")
case("hash in double quotes", 'A="1 # 2"\n')
case("hash in single quotes", "A='1 # 2'\n")
case("comment after double quotes", 'A="1" # c\n')
case("comment right after double quotes", 'A="1"#c\n')
case("comment right after single quotes", "A='1'#c\n")
case("comment after a bare name", "A # c\nB=1\n")
case("comment right after a bare name", "A#c\nB=1\n")
case("comment with quotes in it", "# it's \"x\nA=1\n")
case("comment with an equals sign", "#A=1\nB=2\n")
case("comment after empty value", "A=\n#c\nB=1\n")

# Double quotes.
case("double quotes", 'A="1"\n')
case("double quotes with spaces kept", 'A="  1  "\n')
case("double quotes empty", 'A=""\n')
case("double quotes after space", 'A= "1"\n')
case("double quotes then spaces", 'A="1"   \n')
case("escape newline", 'A="a\\nb"\n')
case("escape tab and return", 'A="a\\tb\\rc"\n')
case("escape bell backspace feed vertical", 'A="\\a\\b\\f\\v"\n')
case("escape quotes", 'A="a\\"b\\\'c"\n')
case("escape backslash", 'A="a\\\\b"\n')
case("escape backslash before n", 'A="a\\\\nb"\n')
case("unknown escapes stay", 'A="\\d\\x41\\u0041\\0\\$"\n')
case("windows path in double quotes", 'A="C:\\Users\\new"\n')
case("single quote in double quotes", 'A="it\'s"\n')
case("multi-line double quotes", 'A="a\nb\n\nc"\nB=2\n')
case("multi-line private key", 'K="-----BEGIN KEY-----\nabc=\n+/x\n-----END KEY-----\n"\nB=1\n')
case("multi-line with hash lines", 'A="a\n# b\nc=d"\nB=2\n')
case("escaped quote at the end and no other", 'A="C:\\"\nB=2\n')
case("escaped quote at the end and a later one", 'A="C:\\"\nB="2"\nC=3\n')
case("two backslashes before the closing quote", 'A="C:\\\\"\nB=2\n')
case("unclosed double quote", 'A="1\nB=2\n')
case("unclosed double quote at the end", 'B=2\nA="1')
case("unclosed quote closed by a later line", 'A="1\nB="2"\nC=3\n')
case("text after double quotes", 'A="1" x\nB=2\n')
case("text right after double quotes", 'A="1"x\nB=2\n')
case("two quoted strings", 'A="1" "2"\nB=2\n')
case("quote in the middle", 'A=a"b"c\n')
case("quote at the end only", 'A=ab"\n')
case("text after a multi-line value", 'A="1\n2" x\nB=2\n')

# Single quotes.
case("single quotes", "A='1'\n")
case("single quotes with spaces kept", "A='  1  '\n")
case("single quotes empty", "A=''\n")
case("no escapes in single quotes", "A='a\\nb\\t'\n")
case("escaped single quote", "A='it\\'s'\n")
case("escaped backslash in single quotes", "A='a\\\\b'\n")
case("double quote escape in single quotes", "A='a\\\"b'\n")
case("double quotes in single quotes", "A='{\"a\": 1}'\n")
case("multi-line single quotes", "A='a\nb'\nB=2\n")
case("windows path in single quotes", "A='C:\\'\nB=2\n")
case("several escaped quotes and none that closes", "A='a\\'b\\'c\nB=2\n")
case("unclosed single quote", "A='1\nB=2\n")
case("apostrophe in an unquoted value", "A=it's\n")
case("backtick value", "A=`1`\n")

# Names in quotes.
case("quoted name", "'A'=1\n")
case("quoted name with space", "'A B'=1\n")
case("quoted name with equals sign", "'A=B'=1\n")
case("quoted name over two lines", "'A\nB'=1\n")
case("empty quoted name", "''=1\nB=2\n")
case("unclosed quoted name", "'A=1\nB=2\n")
case("double quoted name", '"A"=1\n')
case("quoted bare name", "'A'\nB=1\n")

# Lines that cannot be read.
case("no name", "=1\nB=2\n")
case("two words", "hello world\nB=2\n")
case("two words and an equals sign", "hello world=1\nB=2\n")
case("bad line at the end", "A=1\nhello world")
case("several bad lines", "=1\nA=1\nx y\n\n\n=2\nB=2\n")
case("yaml", "---\na: 1\nb: 2\nC=3\n")
case("shell code", "if [ -f x ]; then\n  A=1\nfi\nB=2\n")
case("html", "<html>\n<b>A=1</b>\n</html>\n")

# Interpolation.
case("variable", "A=1\nB=${A}\n")
case("variable inside text", "A=1\nB=x${A}y\n")
case("variable in double quotes", 'A=1\nB="x${A}y"\n')
case("variable in single quotes too", "A=1\nB='x${A}y'\n")
case("variable twice", "A=1\nB=${A}${A}\n")
case("variable from outside", "B=${EXT}\n")
case("outside wins over the file", "EXT=inside\nB=${EXT}\n")
case("outside and empty wins over the file", "EXT=inside\nB=[${EXT}]\n", {"EXT": ""})
case("variable that is not there", "B=[${NOPE}]\n")
case("variable defined later", "B=[${A}]\nA=1\n")
case("variable that names itself", "A=1\nA=${A}2\n")
case("variable that names itself outside", "EXT=${EXT}:more\n")
case("chain of variables", "A=1\nB=${A}2\nC=${B}3\n")
case("default used", "B=${NOPE:-x}\n")
case("default not used", "A=1\nB=${A:-x}\n")
case("default not used for an empty value", "A=\nB=[${A:-x}]\n")
case("default not used for a bare name", "A\nB=[${A:-x}]\n")
case("empty default", "B=[${NOPE:-}]\n")
case("default with signs", "B=${NOPE:-http://h:1/x?y#z}\n")
case("default with spaces", "B=${NOPE:-a b}\n")
case("default with a dash", "B=${NOPE:--}\n")
case("default that holds a variable", "A=1\nB=${NOPE:-${A}}\n")
case("default over two lines", 'B="${NOPE:-a\nb}"\n')
case("default without colon is part of the name", "B=[${NOPE-x}]\n")
case("required mark stays", "B=${NOPE:?x}\n")
case("alternative mark stays", "A=1\nB=${A:+x}\n")
case("colon alone stays", "A=1\nB=${A:x}\n")
case("colon mark before a good one", "A=1\nB=${A:x}${A}\n")
case("unclosed brace", "A=1\nB=${A\n")
case("unclosed brace with a default", "B=${A:-x\n")
case("unclosed brace then a good one", "A=1\nB=${X ${A}\n")
case("empty braces", "B=[${}]\n")
case("empty name with default", "B=[${:-x}]\n")
case("name with spaces", "B=[${ EXT }]\n")
case("dollar name is plain", "A=1\nB=$A\n")
case("two dollars are plain", "B=pa$$w0rd\n")
case("dollar at the end", "B=abc$\n")
case("dollar before a brace pair", "B=$${EXT}\n")
case("backslash before the dollar", "B=\\${EXT}\n")
case("backslash before the dollar in quotes", 'B="\\${EXT}"\n')
case("values are not expanded twice", "A='$'\nB='{EXT}'\nC=${A}${B}\n")
case("value from outside is not expanded", "B=${EXT}\n", {"EXT": "${HOME}"})
case("interpolated value keeps its spaces", 'A="  x "\nB=[${A}]\n')
case("interpolated value keeps a hash", 'A="x # y"\nB=${A}\n')
case("comment cuts a variable", "B=${EXT #}\n")
case("bad line does not stop interpolation", "A=1\nx y\nB=${A}\n")
case("secret with every sign", "S=a$b!c%d^e&f*g(h)i_j+k|l~m`n\n")

# Line ends and odd white space.
case("crlf", "A=1\r\nB=2\r\n")
case("crlf with quotes", 'A="1"\r\nB=\'2\'\r\n')
case("crlf with comment", "A=1 # c\r\n# d\r\nB=2\r\n")
case("crlf in a multi-line value", 'A="a\r\nb"\r\nB=2\r\n')
case("crlf and a bad line", "A=1\r\n=2\r\nB=2\r\n")
case("cr only", "A=1\rB=2\r")
case("mixed line ends", "A=1\r\nB=2\rC=3\nD=4")
case("form feed between lines", "A=1\n\fB=2\n")
case("vertical tab as space", "A\v=\v1\v\n")
case("no-break space around a value", "A=\u00a01\u00a0\n")
case("no-break space before a comment", "A=1\u00a0# c\n")
case("ideographic space", "A\u3000=\u30001\u3000\n")
case("line separator is only a space", "A=1\u2028B=2\n")
case("next line sign is only a space", "A=1 \u0085\n")
case("ascii separators are spaces", "A\x1c=\x1d1\x1f# c\n")
case("zero width space is not a space", "A=\u200b1\n")
case("bom in the middle", "A=1\n\ufeffB=2\n")


def run(name, text, env):
    os.environ.clear()
    os.environ.update(env)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, ".env")
        with open(path, "wb") as file:
            file.write(text.encode("utf-8"))
        values = DotEnv(path, override=False, interpolate=True, encoding="utf-8").dict()
        problems = []
        with open(path, encoding="utf-8") as file:
            for binding in parse_stream(file):
                if binding.error:
                    # The parser counts from the blank lines before a statement;
                    # the statement itself begins behind them.
                    whole = binding.original.string
                    blank = whole[: len(whole) - len(whole.lstrip())]
                    problems.append(binding.original.line + blank.count("\n"))
    return {
        "name": name,
        "file": text,
        "environment": env,
        "want": [[k, v] for k, v in values.items()],
        "problem_lines": problems,
    }


def main():
    names = [name for name, _, _ in CASES]
    assert len(names) == len(set(names)), "two cases share a name"
    cases = [run(*c) for c in CASES]
    json.dump(
        {
            "made_by": "make_corpus.py",
            "python_dotenv": __version__,
            "python": "%d.%d" % sys.version_info[:2],
            "cases": cases,
        },
        sys.stdout,
        indent=1,
    )
    print()


main()
