//! The forms of rows: which keys make which content.

use minijinja::value::{Value, ValueKind};

use super::content::Content;
use super::conversation;
use super::mapping::RowForm;
use super::object::{Object, kind_of};
use crate::text::chat::{Chat, Message, as_function};

/// The keys of a request, each with the usual key of its answer.
const REQUESTS: [(&str, &str); 5] = [
    ("instruction", "output"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("query", "response"),
    ("input", "output"),
];
/// The keys of an answer.
const ANSWERS: [&str; 4] = ["output", "response", "answer", "completion"];
/// The keys of texts that follow a request.
const ADDITIONS: [&str; 4] = ["question", "query", "input", "context"];

/// The keys of a better and a worse answer: of TRL, of OpenAI, and of other data.
const PREFERENCES: [(&str, &str); 3] = [
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("response_chosen", "response_rejected"),
];

/// Takes the content out of a row.
pub(super) fn content_of(row: &mut Object) -> Result<(Content, RowForm), String> {
    refuse_preferences(row)?;
    if row.has("messages") {
        return messages(row);
    }
    for key in ["conversations", "conversation"] {
        if row.has(key) {
            let mut form = RowForm::new("ShareGPT");
            let messages = conversation::messages(row, key, &mut form)?;
            return Ok((Content::Chat(chat_of(row, messages, &mut form)?), form));
        }
    }
    let request = REQUESTS.iter().find(|(key, _)| row.has(key));
    let Some((request, usual)) = request else {
        return text(row);
    };
    let answers = std::iter::once(usual).chain(&ANSWERS);
    let answer = answers.copied().find(|key| row.has(key));
    match (*request, answer) {
        ("prompt", Some("completion")) => pair(row),
        (request, Some(answer)) => turn(row, request, answer),
        ("query" | "input", None) if row.has("text") => text(row),
        (_, None) => {
            let mut answers = std::iter::once(usual).chain(&ANSWERS);
            Err(match answers.find(|key| row.is_null(key)) {
                Some(key) => without_value(key),
                None => format!("`{usual}` is missing"),
            })
        }
    }
}

/// Pairs of a better and a worse answer are no examples: to learn both would be wrong.
fn refuse_preferences(row: &Object) -> Result<(), String> {
    let mut pairs = PREFERENCES.iter();
    if let Some((better, worse)) = pairs.find(|(better, worse)| row.has(better) && row.has(worse)) {
        let is_object = |key: &str| row.get(key).is_some_and(|v| v.kind() == ValueKind::Map);
        // A message, or an answer to the chat of another key.
        let how = if is_object(better) || is_object("input") {
            "write each of them as the last message of its chat, in rows of `messages`".to_owned()
        } else {
            format!("give the columns {better}=completion, or {better}=messages if they are chats")
        };
        return Err(format!(
            "`{better}` and `{worse}` are for preference training (DPO), which learns from the \
             difference between two answers; to learn the answers in `{better}`, {how}"
        ));
    }
    for key in ["label", "kto_tag"] {
        let is_mark = row.get(key).is_some_and(|v| v.kind() == ValueKind::Bool);
        if is_mark && !row.has("text") {
            return Err(format!(
                "`{key}` marks good and bad answers, for preference training (KTO); remove the \
                 rows whose answers are bad, and the key"
            ));
        }
    }
    Ok(())
}

fn messages(row: &mut Object) -> Result<(Content, RowForm), String> {
    let mut form = RowForm::new("messages");
    let messages = conversation::messages(row, "messages", &mut form)?;
    Ok((Content::Chat(chat_of(row, messages, &mut form)?), form))
}

/// The keys of what a chat shows besides its text.
const MEDIA: [&str; 6] = ["image", "images", "video", "videos", "audio", "audios"];

/// The chat of these messages, with what the row has for all of them.
fn chat_of(row: &mut Object, messages: Vec<Message>, form: &mut RowForm) -> Result<Chat, String> {
    if let Some(key) = MEDIA
        .iter()
        .find(|key| row.get(key).is_some_and(Value::is_true))
    {
        return Err(format!(
            "`{key}` belongs to the chat, and the models that are trained here take only text"
        ));
    }
    let begins = messages.first().map(Message::role);
    let has_system = begins.is_some_and(|role| matches!(role, "system" | "developer"));
    let system = if has_system {
        None
    } else {
        system_of(row, form, "system")?
    };
    let system = system.map(|text| Message::new("system", text));
    given(row, system.into_iter().chain(messages).collect(), form)
}

/// The chat of what comes before the prompt of a pair.
fn before(row: &mut Object, form: &mut RowForm) -> Result<Chat, String> {
    for (key, to) in [
        ("history", "earlier turns if rendered as a chat"),
        ("tools", "tools if rendered as a chat"),
        ("documents", "documents if rendered as a chat"),
        ("chat_template_kwargs", "variables if rendered as a chat"),
    ] {
        if row.has(key) {
            form.reads(key, to);
        }
    }
    let system = system_of(row, form, "system if rendered as a chat")?;
    let system = system.map(|text| Message::new("system", text));
    let history = history(row)?;
    given(row, system.into_iter().chain(history).collect(), form)
}

/// The chat with the tools, documents and variables of the row.
fn given(row: &mut Object, chat: Chat, form: &RowForm) -> Result<Chat, String> {
    let mut tools = row.list("tools")?;
    if let Some(list) = tools.as_mut().filter(|_| form.name == "ShareGPT") {
        let wrapped = list.try_iter().map_err(|e| e.to_string())?;
        let wrapped = wrapped.map(|tool| as_function(&tool));
        *list = wrapped.collect::<Result<Vec<_>, _>>()?.into();
    }
    let mut chat = chat
        .with_tools(tools)
        .with_documents(row.list("documents")?);
    if let Some(variables) = row.structure("chat_template_kwargs")? {
        if variables.kind() != ValueKind::Map {
            let what = kind_of(&variables);
            return Err(format!(
                "`chat_template_kwargs` is {what} and not an object"
            ));
        }
        chat = chat.with_variables(variables);
    }
    Ok(chat)
}

/// The text of the system message, which is read as `to`.
fn system_of(
    row: &mut Object,
    form: &mut RowForm,
    to: &'static str,
) -> Result<Option<String>, String> {
    for key in ["system", "system_prompt"] {
        if let Some(text) = row.text(key)?.filter(|text| !text.is_empty()) {
            form.reads(key, to);
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// A request and its answer, perhaps with earlier turns.
fn turn(
    row: &mut Object,
    request: &'static str,
    answer: &'static str,
) -> Result<(Content, RowForm), String> {
    let mut form = RowForm::new("one turn");
    let mut messages = history(row)?;
    let mut texts = Vec::new();
    for key in std::iter::once(request).chain(ADDITIONS) {
        if !row.has(key) || (key == "query" && matches!(request, "question" | "input")) {
            continue;
        }
        form.reads(key, "user");
        let text = texts_of(row, key)?;
        // A question may be in the instruction already, as a line or as all of it.
        let is_there = |before: &String| {
            let mut lines = before.lines();
            before.trim() == text.trim() || lines.any(|line| line.trim() == text.trim())
        };
        let repeats = matches!(key, "question" | "query") && texts.iter().any(is_there);
        if !text.is_empty() && !repeats {
            texts.push(text);
        }
    }
    form.reads(answer, "assistant");
    messages.push(Message::user(texts.join("\n\n")));
    messages.push(Message::assistant(row.required(answer)?));
    Ok((Content::Chat(chat_of(row, messages, &mut form)?), form))
}

/// The text of a key, or its list of texts, which become paragraphs.
fn texts_of(row: &mut Object, key: &str) -> Result<String, String> {
    let is_list = row
        .get(key)
        .is_some_and(|value| value.kind() == ValueKind::Seq);
    if !is_list {
        return row.required(key);
    }
    let list = row.take(key).unwrap_or_default();
    let mut texts = Vec::new();
    for value in list.try_iter().map_err(|e| e.to_string())? {
        let text = value.as_str().map(str::to_owned);
        let what = kind_of(&value);
        texts.push(text.ok_or_else(|| format!("`{key}` has {what} and not a string"))?);
    }
    Ok(texts.join("\n\n"))
}

/// The earlier turns of an Alpaca row, `[[request, answer], ..]`.
fn history(row: &mut Object) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    let Some(turns) = row.list("history")? else {
        return Ok(messages);
    };
    for turn in turns.try_iter().map_err(|e| e.to_string())? {
        let text = |at| turn.get_item_by_index(at).ok();
        let texts = (text(0), text(1), turn.len());
        let (Some(request), Some(answer), Some(2)) = texts else {
            return Err("`history` is not a list of pairs of a request and an answer".to_owned());
        };
        for (role, value) in [("user", request), ("assistant", answer)] {
            let text = value.as_str();
            let text = text.ok_or_else(|| format!("`history` has {}", kind_of(&value)))?;
            messages.push(Message::new(role, text));
        }
    }
    Ok(messages)
}

/// A prompt and its completion: two texts, or two lists of messages.
fn pair(row: &mut Object) -> Result<(Content, RowForm), String> {
    let is_list = |key| {
        row.get(key)
            .is_some_and(|value| value.kind() == ValueKind::Seq)
    };
    match (is_list("prompt"), is_list("completion")) {
        (false, false) => {
            let prompt = row.required("prompt")?;
            let completion = row.required("completion")?;
            let mut form = RowForm::new("prompt and completion");
            let before = before(row, &mut form)?;
            let content = Content::Pair {
                prompt,
                completion,
                before,
            };
            Ok((content, form))
        }
        (true, true) => {
            let mut form = RowForm::new("messages of a prompt and its completion");
            let prompt = conversation::messages(row, "prompt", &mut form)?;
            let completion = conversation::messages(row, "completion", &mut form)?;
            let learned = completion.len();
            let messages = prompt.into_iter().chain(completion);
            let chat = chat_of(row, messages.collect(), &mut form)?;
            let prompt = chat.messages.len() - learned;
            Ok((Content::Chat(chat.with_prompt(prompt)), form))
        }
        _ => Err(
            "one of `prompt` and `completion` is a list of messages, and the other is not"
                .to_owned(),
        ),
    }
}

/// Why a row cannot be used that has a null for this key.
fn without_value(key: &str) -> String {
    format!("`{key}` has no value: it is null, or its cell is empty")
}

fn text(row: &mut Object) -> Result<(Content, RowForm), String> {
    let requests = REQUESTS.iter().map(|(key, _)| *key);
    let mut keys = requests.chain(["text", "messages", "conversations", "conversation"]);
    if !row.has("text")
        && let Some(key) = keys.find(|key| row.is_null(key))
    {
        return Err(without_value(key));
    }
    if let Some(key) = row.list_of_rows().filter(|_| !row.has("text")) {
        return Err(format!("`{key}` is a list of rows and not a row"));
    }
    let Some(text) = row.text("text")? else {
        return Err(format!(
            "the keys are {}, but `messages`, `conversations`, `instruction` and `output`, \
             `question` and `answer`, `prompt` and `completion`, or `text` are expected; columns \
             can rename keys",
            row.shown_keys()
        ));
    };
    if text.is_empty() {
        return Err("the text is empty".to_owned());
    }
    Ok((Content::Text(text), RowForm::new("text")))
}
