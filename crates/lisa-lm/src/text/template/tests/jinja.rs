use super::super::{Chat, ChatTemplate, Message};
use std::collections::BTreeMap;

/// The rendering of a chat of one message.
fn rendered(source: &str) -> Result<String, String> {
    let template = ChatTemplate::new(source, &BTreeMap::new()).map_err(|e| e.to_string())?;
    let chat = Chat::from([Message::user("Two and two?")]);
    let rendered = template.render(&chat, false).map_err(|e| e.to_string())?;
    Ok(rendered.text)
}

// Written by transformers 5 with Jinja 3.1.
#[test]
fn filters_and_methods_of_strings_write_what_jinja_writes() {
    let cases = [
        (
            "{{ '12'|int }}|{{ 'x'|int }}|{{ 'x'|int(-1) }}|{{ 'ff'|int(0, 16) }}|{{ '0x1f'|int(base=16) }}|{{ '0b11'|int(base=0) }}",
            "12|0|-1|255|31|3",
        ),
        (
            "{{ ' -4_2.7 '|int }}|{{ 2.9|int }}|{{ true|int }}|{{ none|int(default=7) }}|{{ [1]|int }}|{{ '1__0'|int(3) }}|{{ 'z'|int(none) }}",
            "-42|2|1|7|0|3|None",
        ),
        (
            "{{ 'aaaa'|replace('a', 'b', 2) }}|{{ 'aaaa'|replace('a', 'b', count=1) }}|{{ 'aa'|replace('a', 'b', -1) }}|{{ 'aa'|replace('', '-', 0) }}",
            "bbaa|baaa|bb|aa",
        ),
        (
            "{{ 'one two three four'|truncate(9) }}|{{ 'one two three four'|truncate(9, true) }}|{{ 'one two three four'|truncate(15) }}",
            "one...|one tw...|one two three four",
        ),
        (
            "{{ \"it's a_b, two-three é4\"|wordcount }}|{{ ''|wordcount }}",
            "6|0",
        ),
        (
            "[{{ 'ab'|center(5) }}]|[{{ 'abc'|center(6) }}]|[{{ 'abc'|center(width=8) }}]|{{ 'x'|center|length }}",
            "[  ab ]|[ abc  ]|[  abc   ]|80",
        ),
        (
            "{{ '<p>a <!-- <b> --> &amp;  <i>b</i>\\n&lt;c&gt; &#39;&#x41; &x <'|striptags }}|{{ 'a<!-->b'|striptags }}",
            "a & b <c> 'A &x <|a<!-->b",
        ),
        (
            "{{ 'a b/c&é~'|urlencode }}|{{ {'a b': 'c/d', 'e': 1}|urlencode }}|{{ [('x', 'y z')]|urlencode }}",
            "a%20b/c%26%C3%A9~|a+b=c%2Fd&e=1|x=y+z",
        ),
        (
            "{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ '+'.zfill(3) }}|{{ 'abc'.zfill(2) }}|{{ 'é'.zfill(2) }}",
            "007|-007|+00|abc|0é",
        ),
        (
            "{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '.') }}|{{ 'ab'.center(5, '*') }}|{{ 'abc'.center(6, '*') }}|{{ 'ab'.ljust(-1) }}",
            "ab  |..ab|**ab*|*abc**|ab",
        ),
        (
            "{{ 'aBßé'.swapcase() }}|{{ 'Straße ΣΑΣ ﬁ ı'.casefold() }}",
            "AbSSÉ|strasse σασ fi ı",
        ),
        (
            "{{ 'a\\tbc\\td'.expandtabs() }}|{{ 'a\\tb\\n\\tc'.expandtabs(4) }}|{{ 'a\\tb'.expandtabs(tabsize=0) }}",
            "a       bc      d|a   b\n    c|ab",
        ),
        (
            "{{ 2.5|round }}|{{ 3.5|round }}|{{ -0.5|round }}|{{ 2.675|round(2) }}|{{ 42.55|round(1, 'floor') }}|{{ 42.51|round(method='ceil') }}|{{ 7|round }}|{{ 1250|round(-2) }}|{{ 15|round(-1) }}|{{ 25.0|round(-1) }}|{{ true|round }}|{{ 7|round(0, 'ceil') }}|{{ 0.15|round(1) }}|{{ 1e22|round }}|{{ 35|round(-1) }}|{{ 1e16|round(1) }}",
            "2.0|4.0|-0.0|2.67|42.5|43.0|7|1200|20|20.0|1|7.0|0.1|1e+22|40|1e+16",
        ),
        (
            "{{ ['a\u{3000}b\u{a0}c\u{200d}d\u{2028}e', '\u{e000}\u{e0001}\u{85}\u{ad}\u{feff}\u{378}'] }}",
            r"['a\u3000b\xa0c\u200dd\u2028e', '\ue000\U000e0001\x85\xad\ufeff\u0378']",
        ),
        (
            "{{ ['g\u{301}', '\u{301}', 'é 😀', '\\x00\\x7f', \"it's\"] }}",
            "['g\u{301}', '\u{301}', 'é 😀', '\\x00\\x7f', \"it's\"]",
        ),
        (
            "{{ true is number }}{{ 1 is number }}{{ 1.5 is number }}{{ 'a' is number }}{{ none is number }}",
            "TrueTrueTrueFalseFalse",
        ),
        (
            "{{ 'onetwothree'|truncate(5, false, '', 0) }}|{{ 'one two three four'|truncate(length=9, end='é', leeway=0) }}",
            "onetw|one twoé",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn widths_and_lengths_that_make_no_sense_are_refused() {
    let cases = [
        (
            "{{ 'x'.ljust(99999999999) }}",
            "more than 1048576 characters",
        ),
        (
            "{{ 'x'|center(99999999999) }}",
            "more than 1048576 characters",
        ),
        (
            "{{ 'x'.expandtabs(99999999999) }}",
            "more than 1048576 characters",
        ),
        (
            "{{ 'x'|truncate(2) }}",
            "2 is less than the length of \"...\"",
        ),
        (
            "{{ 'x'|truncate(2, ending='') }}",
            "unknown keyword argument",
        ),
    ];
    for (source, expected) in cases {
        let error = rendered(source).unwrap_err();
        assert!(error.contains(expected), "{source}: {error}");
    }
}
