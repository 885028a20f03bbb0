//! [`cause`]: why a template refuses a chat. The engine only says which of its operations failed.

use crate::text::chat::{Chat, Message};

/// The roles of messages with the results of tool calls.
const RESULTS: [&str; 3] = ["tool", "function", "ipython"];

/// Why a template refuses a chat, if it accepts the same chat with texts in all messages, or without
/// tool calls and their results; and what to do. `writes_calls` says whether it may write tool calls.
pub(super) fn cause(
    chat: &Chat,
    writes_calls: bool,
    is_accepted: impl Fn(&Chat) -> bool,
) -> Option<(String, &'static str)> {
    let position = |is_wanted: fn(&Message) -> bool| chat.messages.iter().position(is_wanted);
    let no_text: fn(&Message) -> bool = |message| message.content().is_none();
    let of_calls = |index: usize| {
        let and_no_text = if no_text(&chat.messages[index]) {
            " and no text"
        } else {
            ""
        };
        let cause = format!(
            "message {} has tool calls{and_no_text}, and the template writes no tool calls",
            index + 1
        );
        (cause, "choose a chat template that writes tool calls")
    };
    if let Some(index) = position(no_text) {
        let mut with_text = chat.clone();
        for message in with_text
            .messages
            .iter_mut()
            .filter(|message| no_text(message))
        {
            *message = message.clone().with("content", "");
        }
        if is_accepted(&with_text) {
            if chat.messages[index].calls() && !writes_calls {
                return Some(of_calls(index));
            }
            let cause = format!(
                "message {} has no text (its `content` is null or absent)",
                index + 1
            );
            let help = "give the message a text, or choose a chat template that needs none";
            return Some((cause, help));
        }
    }
    let index = position(Message::calls).filter(|_| !writes_calls)?;
    let mut without = chat.clone();
    without
        .messages
        .retain(|message| !message.calls() && !RESULTS.contains(&message.role()));
    let has_results = position(|message| RESULTS.contains(&message.role())).is_some();
    (has_results && is_accepted(&without)).then(|| of_calls(index))
}
