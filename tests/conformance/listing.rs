//! Checks of listings: order, odd names, prefixes, delimiter, pages.

use dreamfs::store::{BucketName, Kind, ListPage, ListRequest, Store};

use super::{Check, Expectations, at, checks, put, read, refused};

pub fn checks() -> Vec<(&'static str, Check)> {
    checks![
        listing_has_what_was_stored,
        odd_names_come_back_in_byte_order,
        delimiter_folds,
        small_pages_lose_nothing,
        start_after_is_exclusive,
        prefix_is_of_characters_not_segments,
        empty_listing,
    ]
}

/// Names that some client or server spells wrong.
pub fn odd_names(what: &Expectations) -> Vec<&'static str> {
    let mut names = vec![
        " ",
        " leading",
        "trailing ",
        "two  blanks",
        "+",
        "a+b",
        "%",
        "%41",
        "%2F",
        "%2e%2e",
        "?",
        "a?b=c",
        "&",
        "&amp;",
        "#",
        "=",
        "'",
        "\"",
        "`",
        "<>&",
        "]]>",
        "\\",
        "a\\b",
        "~*",
        "!()$,;:@",
        "[a]{b}|^",
        "...",
        "..a",
        "ä",
        "a\u{308}",
        "ß/ß",
        "日本語",
        "😀",
        "\u{fffd}",
        "\u{e000}",
        "Z",
        "a",
        "a/b",
        "a.b",
        "a-b",
        "a0",
    ];
    if what.control_characters {
        names.extend(["tab\there", "line\nfeed", "carriage\rreturn", "\u{7f}"]);
    }
    names
}

fn keys(page: &ListPage) -> Vec<&str> {
    page.objects.iter().map(|object| object.key.as_str()).collect()
}

/// Every page of a listing, as one.
async fn all_pages(store: &dyn Store, bucket: &BucketName, mut request: ListRequest) -> (ListPage, usize) {
    let (mut all, mut pages) = (ListPage::default(), 0);
    loop {
        let page = store.list(bucket, &request).await.unwrap();
        pages += 1;
        assert!(pages < 1000, "the listing never ends");
        if let Some(keys_max) = request.keys_max {
            assert!(page.objects.len() + page.prefixes.len() <= keys_max as usize, "{page:?}");
        }
        all.objects.extend(page.objects);
        all.prefixes.extend(page.prefixes);
        match page.continuation {
            Some(continuation) => request.continuation = Some(continuation),
            None => return (all, pages),
        }
    }
}

async fn listing_has_what_was_stored(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "listed");
    let etag = put(store, &location, b"12345").await;
    let head = store.head(&location, None).await.unwrap();
    let page = store.list(bucket, &ListRequest::default()).await.unwrap();
    assert_eq!((keys(&page), &page.prefixes, &page.continuation), (vec!["listed"], &vec![], &None));
    assert_eq!((page.objects[0].size_bytes, &page.objects[0].etag), (5, &etag));
    let apart = |one: std::time::SystemTime, two| one.duration_since(two).unwrap_or_default().as_secs();
    let (listed, headed) = (page.objects[0].modified, head.modified);
    assert!(apart(listed, headed) + apart(headed, listed) <= 1, "{listed:?} {headed:?}");
}

async fn odd_names_come_back_in_byte_order(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let mut names = odd_names(what);
    for name in &names {
        put(store, &at(bucket, name), name.as_bytes()).await;
    }
    names.sort_unstable();
    let page = store.list(bucket, &ListRequest::default()).await.unwrap();
    assert_eq!(keys(&page), names);
    for name in &names {
        assert_eq!(read(store, &at(bucket, name)).await, name.as_bytes(), "{name:?}");
        let request = ListRequest { prefix: (*name).to_owned(), keys_max: Some(1), ..ListRequest::default() };
        assert_eq!(keys(&store.list(bucket, &request).await.unwrap()), [*name], "listed by its own prefix");
    }
}

async fn delimiter_folds(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    for key in ["a", "a/", "a/1", "a/b/2", "a/b/3", "a0", "b/4", "b c/5", "z"] {
        put(store, &at(bucket, key), b"x").await;
    }
    let delimited = ListRequest { delimited: true, ..ListRequest::default() };
    let (root, _) = all_pages(store, bucket, delimited.clone()).await;
    assert_eq!(
        (keys(&root), root.prefixes.as_slice()),
        (vec!["a", "a0", "z"], &["a/", "b c/", "b/"].map(String::from)[..])
    );
    let (below, _) = all_pages(store, bucket, ListRequest { prefix: "a/".to_owned(), ..delimited.clone() }).await;
    assert_eq!((keys(&below), below.prefixes.as_slice()), (vec!["a/", "a/1"], &["a/b/".to_owned()][..]));
    let (flat, _) = all_pages(store, bucket, ListRequest { prefix: "a/".to_owned(), ..ListRequest::default() }).await;
    assert_eq!(keys(&flat), ["a/", "a/1", "a/b/2", "a/b/3"]);
    assert!(flat.prefixes.is_empty());
}

async fn small_pages_lose_nothing(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    for key in ["a", "a+b", "d1/x", "d1/y", "d1/z", "d2 ?/x", "d2 ?/y", "e", "f/1", "f/2", "g&", "ü"] {
        put(store, &at(bucket, key), b"x").await;
    }
    for delimited in [false, true] {
        let whole = ListRequest { delimited, ..ListRequest::default() };
        let (expected, _) = all_pages(store, bucket, whole.clone()).await;
        assert_eq!(expected.objects.len(), if delimited { 5 } else { 12 });
        for keys_max in [1, 2, 3, 5] {
            let request = ListRequest { keys_max: Some(keys_max), ..whole.clone() };
            let (found, pages) = all_pages(store, bucket, request).await;
            assert_eq!(found, expected, "pages of {keys_max}, delimited: {delimited}");
            assert!(pages > 1);
        }
    }
}

async fn start_after_is_exclusive(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    for key in ["a", "b", "b+", "c/1", "c/2", "d"] {
        put(store, &at(bucket, key), b"x").await;
    }
    let after = |name: &str| ListRequest { start_after: Some(name.to_owned()), ..ListRequest::default() };
    for (name, expected) in [
        ("b", &["b+", "c/1", "c/2", "d"][..]),
        ("b ", &["b+", "c/1", "c/2", "d"][..]),
        ("c/1", &["c/2", "d"][..]),
        ("d", &[][..]),
    ] {
        let (found, _) = all_pages(store, bucket, after(name)).await;
        assert_eq!(keys(&found), expected, "after {name:?}");
        let (paged, _) = all_pages(store, bucket, ListRequest { keys_max: Some(1), ..after(name) }).await;
        assert_eq!(keys(&paged), expected, "after {name:?}, in pages of one");
    }
    let (found, _) = all_pages(store, bucket, ListRequest { prefix: "c/".to_owned(), ..after("a") }).await;
    assert_eq!(keys(&found), ["c/1", "c/2"]);
}

async fn prefix_is_of_characters_not_segments(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    for key in ["dir/a", "dir2/a", "di", "DIR/a"] {
        put(store, &at(bucket, key), b"x").await;
    }
    let (found, _) = all_pages(store, bucket, ListRequest { prefix: "dir".to_owned(), ..ListRequest::default() }).await;
    assert_eq!(keys(&found), ["dir/a", "dir2/a"]);
    let (none, _) =
        all_pages(store, bucket, ListRequest { prefix: "dir/b".to_owned(), ..ListRequest::default() }).await;
    assert!(none.objects.is_empty());
}

async fn empty_listing(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    assert_eq!(store.list(bucket, &ListRequest::default()).await.unwrap(), ListPage::default());
    let nowhere = BucketName::new("dreamfs-no-such-bucket-anywhere").unwrap();
    assert_eq!(refused(store.list(&nowhere, &ListRequest::default()).await), Kind::NoSuchBucket);
}
