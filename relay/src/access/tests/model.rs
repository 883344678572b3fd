//! Random roles and random requests against a model that is too simple to be wrong: it writes out every
//! request that there can be and asks each rule about it in plain words.

use std::collections::BTreeMap;

use holdfast_protocol::ids::UserName;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::access::decision::{Facts, reach};
use crate::access::policy::{Ability, Subject};
use crate::access::tests::fixture::{device, labels, login};
use crate::model::form::{RoleForm, RuleForm, TomlText};
use crate::model::labels::Labels;
use crate::model::role::{Role, RoleName};
use crate::model::user::User;

const KEYS: [&str; 2] = ["env", "role"];
const VALUES: [&str; 3] = ["a", "b", "c"];
const LOGINS: [&str; 4] = ["alice", "pi", "root", "another"];
const DEVICE: [Ability; 3] = [Ability::Shell, Ability::Exec, Ability::Join];

/// A rule in the words of a document, which the model reads on its own.
#[derive(Clone, Debug)]
struct Words {
    labels: Option<Vec<(String, Vec<String>)>>,
    logins: Option<Vec<String>>,
    abilities: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
struct RoleWords {
    allow: Vec<Words>,
    deny: Vec<Words>,
    near: bool,
}

fn words(allow: bool) -> impl Strategy<Value = Words> {
    let value =
        prop::sample::select(vec!["a", "b", "c", "*", "!=a", "!=b"]).prop_map(str::to_owned);
    let labels = btree_map(prop::sample::select(KEYS.to_vec()), vec(value, 1..3), 0..3);
    let labels = labels.prop_map(|labels| {
        if labels.is_empty() {
            return vec![("*".to_owned(), vec!["*".to_owned()])];
        }
        labels
            .into_iter()
            .map(|(key, values)| (key.to_owned(), values))
            .collect()
    });
    let login = prop::sample::select(vec!["alice", "pi", "root", "*", "{user}"]);
    let ability = prop::sample::select(vec!["shell", "exec", "join"]);
    let logins = vec(login.prop_map(str::to_owned), 1..3);
    let abilities = vec(ability.prop_map(str::to_owned), 1..3);
    (
        sometimes(allow, labels),
        sometimes(allow, logins),
        sometimes(allow, abilities),
    )
        .prop_map(|(labels, logins, abilities)| Words {
            labels,
            logins,
            abilities,
        })
        .prop_filter("names something", |words| {
            words.labels.is_some() || words.logins.is_some() || words.abilities.is_some()
        })
}

/// Generates a part of a rule. An allow rule names all three, or it is refused before it can be a rule.
fn sometimes<T: Clone + std::fmt::Debug + 'static>(
    always: bool,
    what: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    match always {
        true => what.prop_map(Some).boxed(),
        false => option::weighted(0.6, what).boxed(),
    }
}

fn role_words() -> impl Strategy<Value = RoleWords> {
    let rules = (
        vec(words(true), 0..3),
        vec(words(false), 0..2),
        any::<bool>(),
    );
    rules.prop_map(|(allow, deny, near)| RoleWords { allow, deny, near })
}

fn role_of(index: usize, words: &RoleWords) -> Role {
    let rule = |words: &Words| -> RuleForm {
        let labels = words.labels.as_ref().map(|labels| {
            let table: serde_json::Map<_, _> = labels
                .iter()
                .map(|(key, values)| (key.clone(), serde_json::json!(values)))
                .collect();
            table
        });
        let mut form = serde_json::Map::new();
        if let Some(labels) = labels {
            form.insert("labels".into(), labels.into());
        }
        if let Some(logins) = &words.logins {
            form.insert("logins".into(), serde_json::json!(logins));
        }
        if let Some(abilities) = &words.abilities {
            form.insert("abilities".into(), serde_json::json!(abilities));
        }
        serde_json::from_value(form.into()).unwrap()
    };
    let form = RoleForm {
        source: if words.near {
            vec!["203.0.113.0/24".parse().unwrap()]
        } else {
            vec![]
        },
        allow: words.allow.iter().map(rule).collect(),
        deny: words.deny.iter().map(rule).collect(),
        ..RoleForm::default()
    };
    form.role(RoleName::new(&format!("r{index}")).unwrap())
        .unwrap()
}

/// Returns the model: whether a rule is about a request, where `absent` is what it says of what it does not name.
fn about(rule: &Words, device: &Labels, who: &str, ability: &str, absent: bool) -> bool {
    let value_of = |key: &str| {
        let found = device.iter().find(|(name, _)| name.as_str() == key);
        found.map(|(_, value)| value.as_str())
    };
    let label_holds = |(key, wanted): &(String, Vec<String>)| {
        if key == "*" {
            return true;
        }
        let value = value_of(key);
        let (not, any): (Vec<&String>, Vec<&String>) =
            wanted.iter().partition(|one| one.starts_with("!="));
        let unwanted = not.iter().any(|one| value == one.strip_prefix("!="));
        let fits = |one: &&String| match one.as_str() {
            "*" => value.is_some(),
            exact => value == Some(exact),
        };
        !unwanted && (any.is_empty() || any.iter().any(fits))
    };
    let by_labels = rule
        .labels
        .as_ref()
        .map_or(absent, |all| all.iter().all(label_holds));
    let by_login = rule.logins.as_ref().map_or(absent, |all| {
        all.iter()
            .any(|one| one == "*" || one == who || (one == "{user}" && who == "alice"))
    });
    let by_ability = rule
        .abilities
        .as_ref()
        .map_or(absent, |all| all.iter().any(|one| one == ability));
    by_labels && by_login && by_ability
}

fn model(roles: &[RoleWords], device: &Labels, who: &str, ability: &str, near: bool) -> bool {
    let count: Vec<_> = roles.iter().filter(|role| near || !role.near).collect();
    let allowed = count
        .iter()
        .flat_map(|role| &role.allow)
        .any(|rule| about(rule, device, who, ability, false));
    let denied = count
        .iter()
        .flat_map(|role| &role.deny)
        .any(|rule| about(rule, device, who, ability, true));
    allowed && !denied
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decisions_are_the_models(
        roles in vec(role_words(), 0..4),
        on in btree_map(prop::sample::select(KEYS.to_vec()), prop::sample::select(VALUES.to_vec()), 0..3),
        near: bool,
    ) {
        let on: Vec<_> = on.into_iter().collect();
        let device = device(labels(&on), None);
        let subject = Subject {
            elsewhere: None,
            user: User {
                id: crate::model::user::UserId(1),
                name: UserName::new("alice").unwrap(),
                email: None,
                roles: vec![],
                disabled: false,
            },
            roles: roles.iter().enumerate().map(|(index, role)| role_of(index, role)).collect(),
        };
        let client = if near { "203.0.113.9" } else { "198.51.100.9" };
        let facts = Facts {
            subject: &subject,
            client: client.parse().unwrap(),
            name: "kitchen-cam",
            device: Some(&device),
        };
        let reached = reach(facts);
        let mut anything = false;
        for who in LOGINS {
            for ability in DEVICE {
                let expected = model(&roles, &device.labels, who, ability.as_str(), near);
                let found = reached.as_ref().is_ok_and(|reach| reach.authorize(&login(who), ability).is_ok());
                prop_assert_eq!(found, expected, "{} {:?}", who, ability);
                anything |= expected;
            }
        }
        // One of the logins is named by no rule, so that what is allowed to all of them shows as well.
        prop_assert_eq!(reached.is_ok(), anything);
        let absent = reach(Facts { device: None, ..facts }).unwrap_err();
        if let Err(denied) = reached {
            prop_assert_eq!(denied, absent);
        }
    }

    #[test]
    fn what_is_written_is_read_back(roles in vec(role_words(), 1..3)) {
        for (index, words) in roles.iter().enumerate() {
            let role = role_of(index, words);
            let mut text = TomlText::default();
            text.role(&role.name, &RoleForm::of(&role));
            let text = text.finish();
            let mut document: BTreeMap<String, BTreeMap<String, RoleForm>> = toml::from_str(&text).unwrap();
            let form = document.get_mut("roles").and_then(|roles| roles.remove(role.name.as_str()));
            prop_assert_eq!(form.unwrap().role(role.name.clone()), Ok(role), "{}", text);
        }
    }
}
