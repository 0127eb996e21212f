"""Texts that tokenizers get wrong: the corpus of the goldens, and the text that the small
vocabularies are trained on."""

# What each piece of text is there for stands beside it; the order is the order of the goldens.
NASTY = [
    "",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "a",
    "Hello, world!",
    " Hello",
    "Hello ",
    "  two  spaces   three    four     five",
    "trailing spaces   ",
    "tabs\tand\t\ttabs \t mixed \t \t",
    "lines\nand\n\nblank\n\n\nlines \n \n  \n x",
    "windows\r\nlines\r\n\r\nold\rmac\r\rlines\n\r\n",
    # Contractions in every case, and the long s that folds to s.
    "I'm you're he's we'll they've I'd don't",
    "I'M YOU'RE HE'S WE'LL THEY'VE I'D DON'T",
    "it'S it'Ll 'tis 'twas rock'n'roll ''quoted'' 's's 're",
    "'\u017f '\u212a o'\u017fx",
    # Numbers: long runs, groups, other digits, fractions, Roman, circled.
    "1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x1F600 1e-10",
    "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969 \u00bd\u2153 \u2163\u2168 \u2460\u2461 x\u00b2 H\u2082O",
    # Punctuation runs.
    "!!! ??? ... --- === ### *** ___ ~~~ ``` \"\"\" ((())) [[[]]] {{{}}} <<<>>>",
    "a.b,c;d:e!f?g-h_i/j\\k|l@m#n$o%p^q&r*s+t=u~v`w",
    "$100 + 5% = \u20ac95 \u00a3\u00a5 <tag attr=\"x\"/> ^caret~tilde|pipe",
    # Code.
    "fn main() {\n    println!(\"{}\", 1 + 1);\n}\n",
    "def f(x):\n\tif x:\n\t\treturn x**2  # comment\n\n\nclass A(B):\n    pass\n",
    "for(int i=0;i<10;i++){a[i]+=b[i]<<2;}/* c */ // d",
    "SELECT * FROM t WHERE a='b' AND c>=1;\n\n        indented eight\n\t\ttabbed",
    "https://example.com/path?q=1&r=a%20b#frag user@example.org C:\\dir\\file.txt",
    "camelCaseAndPascalCase snake_case_and_SCREAMING_CASE kebab-case",
    # Emoji: plain, skin tones, families joined by ZWJ, flags, keycaps.
    "\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1e9\U0001f1ea\U0001f1ef\U0001f1f5 1\ufe0f\u20e3 \u2764\ufe0f \U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f600\U0001f600\U0001f600\U0001f600 text\U0001f600text",
    # CJK, Japanese, Korean, mixed.
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff01",
    "\u6771\u4eac\u30bf\u30ef\u30fc\u306f\u9ad8\u3044\u3067\u3059\u3002\u3072\u3089\u304c\u306a\u30ab\u30bf\u30ab\u30ca",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "mixed \u4e2d\u6587 and English\u4e2d\u6587words \ud55c\uad6d\uc5b4",
    "\U00020000\U0002a6d6 \U0002b820\U0002b920 \U00030000",
    # Right to left, with direction marks.
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u202eoverride\u202c \u200fmark\u200e \u2066isolate\u2069",
    # Combining marks: composed, decomposed, stacked, leading.
    "caf\u00e9 cafe\u0301 na\u00efve nai\u0308ve \u1e9b\u0323 \u1e9b\u0323\u0307",
    "Z\u0351\u036b\u0343a\u0301\u0302\u0303l\u0334\u0335go\u0336",
    "\u0301leading \u0301\u0302\u0303",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51 \u1780\u17d2\u1793\u17bb\u17c6 \U0001e900\U0001e922\U0001e944",
    # Forms that compatibility folding changes.
    "\ufb01ligature \uff26\uff55\uff4c\uff4c\u3000width \u2126\u212b \u2460 \u1d400",
    # White space of every kind.
    "a\u00a0b\u2003c\u2009d\u3000e\u200bf\u2028g\u2029h\u0085i\ufeffj",
    "\u00a0\u00a0x \u2003 \u2003y\u3000\u3000z \u00a0",
    # Control characters, NUL, private use, not-a-character, the replacement character.
    "nul\x00nul \x01\x02\x03 bell\x07 esc\x1b[31m del\x7f \x80\x9f",
    "\ufffd \ufffe \uffff \ue000 \U000f0000 \U0010ffff",
    "\u00ad soft\u00adhyphen \u2060joiner \u180e",
    # Special tokens of all the families, in text.
    "<|endoftext|>",
    "a<|endoftext|>b <|endoftext|> c",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "<s>[INST] Hi [/INST] there</s>  <s> x </s>",
    "[CLS] the [MASK] sat [SEP] on [PAD] [UNK]",
    "a <mask> b<mask>c  <mask>  d",
    "<|im_start <|im_end|><|im_end|>|> <|endof<|endoftext|>text|>",
    "<tool_call>{\"name\": \"f\"}</tool_call><think>\n\n</think>",
    "<unk> \u2581 \u2581\u2581x \u0120word \u010a <0x41> <0x0A>",
    # Long words and long runs.
    "a" * 300,
    "supercalifragilisticexpialidocious" * 4,
    "ab" * 120 + " " + "\u00e9" * 70,
    " " * 130 + "x",
    "\n" * 40 + "y" + " \n" * 20,
    "=" * 200,
    "0" * 97,
    "word " * 30,
    # Scripts without blanks between.
    "Latin\u041a\u0438\u0440\u0438\u043b\u043b\u0438\u0446\u0430\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac\u05e2\u05d1\u05e8\u05d9\u05ea\u0939\u093f\u0928\u094d\u0926\u0940\u4e2d\u6587123",
    "\u0421\u044a\u0435\u0448\u044c \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 \u043c\u044f\u0433\u043a\u0438\u0445 \u0431\u0443\u043b\u043e\u043a, \u0434\u0430 \u0432\u044b\u043f\u0435\u0439 \u0447\u0430\u044e.",
    "\u039e\u03b5\u03c3\u03ba\u03b5\u03c0\u03ac\u03b6\u03c9 \u03a3\u0399\u0393\u039c\u0391\u03a3 \u03c4\u1f74\u03bd \u03c8\u03c5\u03c7\u03bf\u03c6\u03b8\u03cc\u03c1\u03b1",
    "\u0130stanbul I\u0131\u0130i \u1e9e\u00df \ufb03 \u01c5",
    "Voix ambigu\u00eb d'un c\u0153ur qui, au z\u00e9phyr, pr\u00e9f\u00e8re les jattes de kiwis",
    "Zw\u00f6lf Boxk\u00e4mpfer jagen Viktor quer \u00fcber den gro\u00dfen Sylter Deich",
]

# What the small vocabularies are trained on: prose, code and a little of many scripts.
TRAINING = NASTY + [
    "A bursar keeps the accounts, grants what there is, and says no in good time.",
    "The quick brown fox jumps over the lazy dog. The dog, being lazy, does not mind.",
    "There is nothing to be done about the weather, but there is something to be said for it.",
    "Every token has an identifier, and every identifier has a token; that is the whole of it.",
    "She said that they would have been there if there had been another train in the morning.",
    "When memory is short the planner says so before anything is loaded, not after it is gone.",
    "In the beginning there were bytes, and the bytes were without form until they were read.",
    "pub fn encode(&self, text: &str) -> Vec<u32> { let mut ids = Vec::new(); ids }",
    "import json\nfor name, value in sorted(table.items()):\n    print(name, value)\n",
    "if (count == 0) { return NULL; } else { while (--count) { total += values[count]; } }",
    "{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": {}}}",
    "10 20 30 100 200 300 1000 2000 2024 2025 12:30 99.9 100% 3rd 4th 21st",
] * 4
