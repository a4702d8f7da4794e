package contracts_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
)

// examples says which schema each example has.
var examples = map[string]string{
	"facebook_leadgen.json":                  "facebook_leadgen",
	"sms_inbound.example.json":               "sms_inbound",
	"stripe_checkout_session_completed.json": "stripe_checkout_session_completed",
	"stripe_payment_failed.json":             "stripe_payment_failed",
	"stripe_payment_succeeded.json":          "stripe_payment_succeeded",
	"stripe_subscription_created.json":       "stripe_subscription_created",
	"stripe_subscription_deleted.json":       "stripe_subscription_deleted",
	"stripe_subscription_updated.json":       "stripe_subscription_updated",
}

var day = time.Date(2026, 11, 20, 9, 12, 4, 0, time.UTC)

// records has one value of each record with every field set, by the schema's name.
var records = map[string]any{
	"lead": contracts.Lead{ID: "1234567890123456", CreatedAt: day, Name: "Camille Martin", FirstName: "Camille", Email: "camille@example.com",
		Phone: "+33639980102", FormID: "202", PageID: "101", Status: contracts.LeadClient, CustomerID: "cus_1", OptedOutAt: day,
		Answers: map[string][]string{"budget": {"1000"}, "empty": {}}, CustomerStatus: contracts.CustomerClient, ContactedAt: day,
		PhoneIssue: "not_mobile", Disclaimers: map[string]bool{"sms": true}, AdID: "404",
		CampaignID: "505", Platform: "fb", Pending: true, Announced: 7, Lookups: 3, NoWelcome: "consent"},
	"contact": contracts.Contact{Phone: "+33639980102", Leads: []string{"1234567890123456"}, Customers: []string{"cus_1"}, OptedOutAt: day, OptedInAt: day,
		UnclearAt: day, ClearedAt: day, AskedAt: day, LastSMSAt: day, Welcomes: []contracts.Welcome{{LeadID: "1234567890123456", At: day}}},
	"customer": contracts.Customer{ID: "cus_1", Email: "camille@example.com", Phone: "+33639980102", Name: "Camille Martin", LeadID: "1234567890123456",
		Subscriptions: []string{"sub_1"}, Status: contracts.CustomerPastDue, Access: contracts.AccessActive, Since: day, LeadRef: "1234567890123456",
		Emails: []string{"camille@example.com"}, Phones: []string{"+33639980102"},
		Facts:    map[string]contracts.Facted{"email": {At: day, Rank: 1, Event: "evt_1"}},
		LiveMode: new(false), Account: "acct_1", PaidAt: day, DeletedAt: day,
		Refs:     []contracts.LeadRef{{ID: "1234567890123456", Kind: "metadata", At: day, Event: "evt_1"}},
		Invoices: map[string]contracts.Invoice{"in_1": {Attempts: 1}}},
	"subscription": contracts.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: "past_due", PriceID: "price_1", ProductID: "prod_1", Amount: new(int64(5900)),
		LiveMode: new(false), Account: "acct_1", IntervalCount: 3, CancelAt: day, TrialAt: day, RanAt: day,
		Items:    []contracts.SubscriptionItem{{PriceID: "price_1", ProductID: "prod_1", Quantity: 1, Amount: new(int64(5900)), Interval: "month", IntervalCount: 3}},
		Currency: "eur", Interval: "month", CancelAtPeriodEnd: true, CurrentPeriodEnd: day, AsOf: day, CanceledAt: day, EndedAt: day, FailedAttempts: 1,
		NextAttemptAt: day, Access: contracts.AccessActive, CancelReason: "payment_failed",
		Invoices: map[string]contracts.Invoice{"in_1": {Created: day, First: true, Attempts: 1, NextAttemptAt: day, FailedAt: day,
			Tries: map[int]time.Time{1: day}, Closed: "paid"}},
		Snapshots: []contracts.Snapshot{{Event: "evt_1", Created: 1, Rank: 2, State: contracts.SubscriptionState{Status: "active"},
			Before: &contracts.SubscriptionState{Status: "trialing"}}},
		Settled: &contracts.SubscriptionState{Status: "active"}},
	"churn": contracts.Churn{SubscriptionID: "sub_1", CustomerID: "cus_1", Email: "camille@example.com", PriceID: "price_1", Amount: new(int64(5900)),
		Currency: "eur", EndedAt: day, Reason: "cancellation_requested", LiveMode: new(false), Account: "acct_1"},
	"optout": contracts.OptOut{Phone: "+33639980102", OptedOutAt: day, Keyword: "STOP", MessageSID: "SM1", ConfirmedAt: day, ProviderBlockedAt: day,
		Source: contracts.OptOutBySMS, OptedInAt: day, History: []contracts.Word{{At: day, Kind: "opt_out", Source: contracts.OptOutBySMS,
			Keyword: "STOP", Message: "SM1"}}},
	"sms": contracts.SMS{Kind: contracts.SMSPaymentFailed, To: "+33639980102", Body: "Bonjour", Status: contracts.SMSSending,
		SID: "SM00000000000000000000000000000001", Attempts: 1, QueuedAt: day, ExpiresAt: day, SentAt: day, Error: "21211", Cause: "in_1.1",
		LeadID: "1234567890123456", Claim: "x", ClaimedAt: day, NotBefore: day, LeaseUntil: day},
	"incident": contracts.Incident{ID: "billing-42", At: day, Severity: contracts.SeverityWarning, Consumer: contracts.Billing, Stream: contracts.StreamWebhooks,
		Sequence: 42, Subject: "webhooks.stripe.invoice.payment_failed", Reason: "the event has no customer",
		Action: "nats consumer reset WEBHOOKS billing --sequence 42", ResolvedAt: day, LastAt: day, Count: 3,
		Seen: contracts.Ranges{{First: 42, Last: 43}, {First: 50, Last: 50}}, Left: 1, First: 50, Members: []string{"billing-42"}},
	"incident_index": contracts.IncidentIndex{Open: []contracts.OpenIncident{{ID: "billing-42", Consumer: "billing", Kind: "message", Reason: "malformed",
		Sequence: 42}}},
	"text_index": contracts.TextIndex{Key: "sms.welcome.1"},
	"stripe_accounts": contracts.StripeAccounts{Worlds: []string{"live", "test"}, Customers: []string{"cus_1"}, Resettle: []string{"cus_1"},
		ForeignAt: day, InvoiceAt: day, Snapshots: true},
	"failed_block": contracts.FailedBlock{Seen: []byte{1, 2}, Open: []byte{1}},
	"index":        contracts.Index{Leads: []string{"1234567890123456"}, Customers: []string{"cus_1"}},
}

// minimal has one value of each record with no more than it always has.
var minimal = map[string]any{
	"lead":         contracts.Lead{ID: "1", CreatedAt: day, Status: contracts.LeadNew, PhoneIssue: "missing"},
	"contact":      contracts.Contact{Phone: "+33639980102"},
	"customer":     contracts.Customer{ID: "cus_1"},
	"subscription": contracts.Subscription{ID: "sub_1"},
	"churn":        contracts.Churn{SubscriptionID: "sub_1", EndedAt: day},
	"optout":       contracts.OptOut{Phone: "+33639980102", OptedOutAt: day, Source: contracts.OptOutByProvider},
	"sms":          contracts.SMS{Kind: contracts.SMSWelcome, To: "+33639980102", Body: "x", Status: contracts.SMSQueued, QueuedAt: day, Cause: "1"},
	"incident": contracts.Incident{ID: "leads-auth", At: day, Severity: contracts.SeverityError, Consumer: contracts.Leads, Stream: contracts.StreamWebhooks,
		Reason: "the token has expired", Action: "nats consumer info WEBHOOKS leads"},
	"incident_index":  contracts.IncidentIndex{Open: []contracts.OpenIncident{}},
	"failed_block":    contracts.FailedBlock{},
	"stripe_accounts": contracts.StripeAccounts{},
	"text_index":      contracts.TextIndex{Key: "sms.welcome.1"},
	"index":           contracts.Index{},
}

func TestExamples(t *testing.T) {
	t.Parallel()
	files, err := contracts.Examples.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			doc := readExample(t, f.Name())
			contractstest.Validate(t, examples[f.Name()], doc)
			if err := duplicateKeys(json.NewDecoder(bytes.NewReader(doc)), ""); err != nil {
				t.Error(err)
			}
		})
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(examples)), names); diff != "" {
		t.Errorf("the examples (-want +got):\n%s", diff)
	}
}

// Of two equal keys a JSON reader keeps one, and which one differs from reader to reader.
func TestDuplicateKeysAreSeen(t *testing.T) {
	t.Parallel()
	for doc, bad := range map[string]bool{
		`{"a": 1, "b": {"a": [{"a": 1}, {"a": 2}]}}`: false,
		`{"a": 1, "a": 1}`:                           true,
		`{"b": [{"a": 1, "a": 2}]}`:                  true,
	} {
		if err := duplicateKeys(json.NewDecoder(strings.NewReader(doc)), ""); (err != nil) != bad {
			t.Errorf("%s: got %v", doc, err)
		}
	}
}

func TestRecordsValidate(t *testing.T) {
	t.Parallel()
	for size, values := range map[string]map[string]any{"full": records, "minimal": minimal} {
		for name, value := range values {
			doc, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			t.Run(size+" "+name, func(t *testing.T) { contractstest.Record(t, name+".1", doc) })
		}
	}
	for name, value := range records {
		v := reflect.ValueOf(value)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("the full %s leaves %s empty", name, v.Type().Field(i).Name)
			}
		}
	}
}

// TestSchemasFollowRecords compares names, required fields and the words of each
// fixed list with the Go types, so that a field can't be added on one side only.
func TestSchemasFollowRecords(t *testing.T) {
	t.Parallel()
	words := wordsOfTypes(t)
	for name, value := range records {
		schema := readSchema(t, name)
		compareFields(t, name, schema, reflect.TypeOf(value), words)
	}
	subscription := readSchema(t, "subscription")["$defs"].(map[string]any)
	compareFields(t, "invoice", subscription["invoice"], reflect.TypeFor[contracts.Invoice](), words)
	compareFields(t, "snapshot", subscription["snapshot"], reflect.TypeFor[contracts.Snapshot](), words)
	compareFields(t, "state", subscription["state"], reflect.TypeFor[contracts.SubscriptionState](), words)
}

func compareFields(t *testing.T, name string, schema any, typ reflect.Type, words map[string][]string) {
	t.Helper()
	s := schema.(map[string]any)
	properties := s["properties"].(map[string]any)
	var required, got []string
	for i := range typ.NumField() {
		field := typ.Field(i)
		key, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if options == "" {
			required = append(required, key)
		}
		property, ok := properties[key].(map[string]any)
		if !ok {
			t.Errorf("schema %s says nothing of %s", name, key)
			continue
		}
		delete(properties, key)
		if enum, ok := property["enum"].([]any); ok && words[field.Type.Name()] != nil {
			var have []string
			for _, w := range enum {
				if w != "" { // An empty one says "not yet", for which the type has no name.
					have = append(have, w.(string))
				}
			}
			slices.Sort(have)
			if diff := cmp.Diff(words[field.Type.Name()], have); diff != "" {
				t.Errorf("schema %s: the words of %s (-Go +schema):\n%s", name, key, diff)
			}
		} else if words[field.Type.Name()] != nil {
			t.Errorf("schema %s does not list the words of %s", name, key)
		}
	}
	for key := range properties {
		t.Errorf("schema %s has %s, the record has not", name, key)
	}
	list, _ := s["required"].([]any)
	for _, r := range list {
		got = append(got, r.(string))
	}
	if diff := cmp.Diff(required, got); diff != "" {
		t.Errorf("schema %s: required (-Go +schema):\n%s", name, diff)
	}
}

// wordsOfTypes reads records.go for the constants of each string type, sorted.
func wordsOfTypes(t *testing.T) map[string][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "records.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	words := map[string][]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Type != nil && len(spec.Values) == 1 {
			word, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Error(err)
			}
			typ := spec.Type.(*ast.Ident).Name
			words[typ] = append(words[typ], word)
		}
		return true
	})
	for _, w := range words {
		slices.Sort(w)
	}
	if len(words) < 7 {
		t.Fatalf("records.go has the lists %v; want at least 7", words)
	}
	return words
}

// A change is made to a sound document: what stands at Path gets Value, or is removed.
type change struct {
	path  string // keys and indices, separated by "/"
	value any
}

type removed struct{}

// TestOtherShapes has what providers also send.
func TestOtherShapes(t *testing.T) {
	t.Parallel()
	object := "data/object/"
	for name, c := range map[string]struct {
		base    string
		changes []change
	}{
		"an invoice of 2025-03-31": {"stripe_payment_failed.json", []change{
			{"api_version", "2026-09-30.endive"}, {object + "subscription", removed{}}, {object + "paid", removed{}},
			{object + "parent", map[string]any{"type": "subscription_details", "subscription_details": map[string]any{"subscription": "sub_1"}}}}},
		"an invoice with both places": {"stripe_payment_failed.json", []change{
			{object + "parent", map[string]any{"type": "subscription_details", "subscription_details": map[string]any{"subscription": "sub_1"}}}}},
		"an invoice without a subscription": {"stripe_payment_failed.json", []change{{object + "subscription", nil}}},
		"an invoice without a next attempt": {"stripe_payment_failed.json", []change{{object + "next_payment_attempt", nil}}},
		"a subscription of 2025-03-31": {"stripe_subscription_created.json", []change{
			{object + "current_period_end", removed{}}, {object + "items/data/0/current_period_end", 1}}},
		"an expanded customer":   {"stripe_subscription_created.json", []change{{object + "customer", map[string]any{"id": "cus_1"}}}},
		"a status still unknown": {"stripe_subscription_created.json", []change{{object + "status", "resting"}}},
		"a field still unknown":  {"stripe_subscription_created.json", []change{{object + "mood", "good"}, {"context", "x"}}},
		"a checkout that nobody came from": {"stripe_checkout_session_completed.json", []change{
			{object + "client_reference_id", nil}, {object + "customer_details", nil}, {object + "customer", nil}}},
		"Meta's ids as numbers": {"facebook_leadgen.json", []change{
			{"entry/0/changes/0/value/leadgen_id", json.Number("1234567890123456789")}, {"entry/0/id", 101}}},
		"a test lead":                 {"facebook_leadgen.json", []change{{"entry/0/changes/0/value/ad_id", removed{}}, {"entry/0/changes/0/value/adgroup_id", removed{}}}},
		"another field beside a lead": {"facebook_leadgen.json", []change{{"entry/0/changes/0/field", "feed"}, {"entry/0/changes/0/value", "x"}}},
		"a picture":                   {"sms_inbound.example.json", []change{{"Body", ""}, {"MessageSid", "MM0000000000000000000000000000000a"}, {"MediaUrl0", "https://example.com"}}},
		"a short code":                {"sms_inbound.example.json", []change{{"To", "36000"}, {"MessagingServiceSid", removed{}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contractstest.Validate(t, examples[c.base], alter(t, readExample(t, c.base), c.changes...))
		})
	}
}

// TestBroken breaks one thing at a time; the complaint must be about that thing.
func TestBroken(t *testing.T) {
	t.Parallel()
	const object = "data/object/"
	status := map[string]any{"MessageSid": "SM00000000000000000000000000000001", "AccountSid": "AC00000000000000000000000000000001",
		"MessageStatus": "delivered", "sms": "welcome.1", "ErrorCode": "30003"}
	event := map[string]any{"id": "evt_1", "object": "event", "type": "charge.refunded", "created": 1, "data": map[string]any{"object": map[string]any{}}}
	value := map[string]any{"leadgen_id": "1", "page_id": "2", "form_id": "3", "created_time": 4}

	cases := []struct {
		schema string
		base   any // nil: the example or the full record of that schema
		at     string
		value  any
	}{
		{"lead", nil, "id", "a.b"},
		{"lead", nil, "created_at", "2026-11-20T10:12:04+01:00"},
		{"lead", nil, "created_at", "20 Nov 2026"},
		{"lead", nil, "created_at", "0001-01-01T00:00:00Z"},
		{"lead", nil, "status", "lost"},
		{"lead", nil, "status", removed{}},
		{"lead", nil, "answers/budget", "1000"},
		{"lead", nil, "phone_issue", "odd"},
		{"contact", nil, "phone", "33639980102"},
		{"contact", nil, "leads", []string{"1", "1"}},
		{"contact", nil, "welcomes/0/at", removed{}},
		{"customer", nil, "id", "sub_1"},
		{"customer", nil, "status", "active"},
		{"customer", nil, "access", ""}, // A client's is known.
		{"customer", nil, "subscriptions/0", "in_1"},
		{"customer", nil, "facts/email/at", "yesterday"},
		{"subscription", nil, "amount", 59.5},
		{"subscription", nil, "currency", "EUR"},
		{"subscription", nil, "status", ""}, // A snapshot has one.
		{"subscription", nil, "failed_attempts", -1},
		{"subscription", nil, "current_period_end", 1795165924},
		{"subscription", nil, "invoices/in_1/closed", "open"},
		{"subscription", nil, "snapshots/0/rank", 4},
		{"churn", nil, "ended_at", removed{}},
		{"churn", nil, "subscription_id", ""},
		{"optout", nil, "source", "guess"},
		{"optout", nil, "phone", "+0639980102"},
		{"sms", nil, "kind", "newsletter"},
		{"sms", nil, "status", "accepted"},
		{"sms", nil, "to", "0639980102"},
		{"sms", nil, "cause", "a.b.c"},
		{"incident", nil, "action", "ask somebody"},
		{"incident", nil, "consumer", "edge"},
		{"incident", nil, "sequence", -1},
		{"index", nil, "leads", "1234567890123456"},
		{"incident_index", nil, "open", "billing-42"},
		{"failed_block", nil, "seen", "?"},
		{"stripe_accounts", nil, "worlds", "live"},
		{"text_index", nil, "key", "lead.1"},

		{"stripe_event", event, "id", "1"},
		{"stripe_event", event, "type", removed{}},
		{"stripe_event", event, "type", "invoice.*"},
		{"stripe_event", event, "created", "2026-11-20T09:12:04Z"}, // A thin event.
		{"stripe_event", event, "data", nil},
		{"stripe_event", event, "data/object", nil},
		{"stripe_checkout_session_completed", nil, "type", "checkout.session.expired"},
		{"stripe_checkout_session_completed", nil, object + "payment_status", "perhaps"},
		{"stripe_checkout_session_completed", nil, object + "client_reference_id", removed{}},
		{"stripe_checkout_session_completed", nil, object + "customer", 1},
		{"stripe_subscription_created", nil, "type", "customer.subscription.updated"},
		{"stripe_subscription_created", nil, object + "current_period_end", removed{}},
		{"stripe_subscription_created", nil, object + "items/data/0/price", removed{}},
		{"stripe_subscription_updated", nil, "data/previous_attributes", removed{}},
		{"stripe_subscription_updated", nil, object + "status", removed{}},
		{"stripe_subscription_deleted", nil, object + "status", "active"},
		{"stripe_subscription_deleted", nil, object + "ended_at", nil},
		{"stripe_payment_succeeded", nil, object + "status", "open"},
		{"stripe_payment_succeeded", nil, object + "subscription", removed{}},
		{"stripe_payment_failed", nil, object + "attempt_count", "1"},
		{"stripe_payment_failed", nil, object + "id", "ch_1"},
		{"stripe_payment_failed", nil, object + "amount_due", removed{}},
		{"stripe_subscription", exampleObject(t, "stripe_subscription_created.json"), "cancel_at_period_end", nil},
		{"stripe_invoice", exampleObject(t, "stripe_payment_failed.json"), "hosted_invoice_url", "not a URL"},

		{"facebook_leadgen", nil, "object", "user"},
		{"facebook_leadgen", nil, "entry/0/changes", removed{}}, // "Include Values" is off.
		{"facebook_leadgen", nil, "entry/0/changes/0/value/leadgen_id", removed{}},
		{"facebook_leadgen_value", value, "leadgen_id", 1.5},
		{"facebook_leadgen_value", value, "leadgen_id", "1.2"},
		{"facebook_leadgen_value", value, "page_id", removed{}},
		{"sms_inbound", nil, "MessageSid", "1"},
		{"sms_inbound", nil, "From", removed{}},
		{"sms_inbound", nil, "NumMedia", 0}, // A form has strings only.
		{"sms_inbound", nil, "Extra", 0},
		{"sms_status", status, "MessageStatus", removed{}},
		{"sms_status", status, "ErrorCode", "none"},
		{"sms_status", status, "sms", 1},
	}
	seen := map[string]bool{"common": true} // It describes no document.
	for _, c := range cases {
		seen[c.schema] = true
		base := sound(t, c.schema, c.base)
		t.Run(fmt.Sprintf("%s/%s=%v", c.schema, strings.ReplaceAll(c.at, "/", "."), c.value), func(t *testing.T) {
			t.Parallel()
			contractstest.Validate(t, c.schema, base)
			err := contractstest.Check(c.schema, alter(t, base, change{c.at, c.value}))
			if err == nil {
				t.Fatal("it passes")
			}
			// A missing or superfluous key is reported at the object that should have it.
			parent, key, found := cutLast(c.at)
			at := "'/" + c.at
			if _, gone := c.value.(removed); gone {
				at = "'/" + parent + "'"
				if !found {
					at, key = "''", c.at
				}
				if !strings.Contains(err.Error(), "'"+key+"'") {
					t.Errorf("the complaint does not name %s: %v", key, err)
				}
			}
			if !strings.Contains(err.Error(), "at "+at) {
				t.Errorf("the complaint is not about %s: %v", at, err)
			}
		})
	}
	names, err := contractstest.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !seen[name] {
			t.Errorf("schema %s is never seen to refuse anything", name)
		}
	}
}

// A number that can't be texted may stand as it was typed, with the reason beside it.
func TestPhoneAsTypedNeedsReason(t *testing.T) {
	t.Parallel()
	lead := contracts.Lead{ID: "1", CreatedAt: day, Status: contracts.LeadNew, Phone: "call me", PhoneIssue: "unreadable"}
	for _, reason := range []string{"unreadable", ""} {
		lead.PhoneIssue = reason
		doc, err := json.Marshal(lead)
		if err != nil {
			t.Fatal(err)
		}
		if err := contractstest.Check("lead", doc); (err == nil) != (reason != "") {
			t.Errorf("with the reason %q: %v", reason, err)
		}
	}
}

func cutLast(path string) (parent, key string, found bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// sound gives a document that the schema takes: base, or the schema's example or full record.
func sound(t *testing.T, schema string, base any) []byte {
	t.Helper()
	if base == nil {
		for file, name := range examples {
			if name == schema {
				return readExample(t, file)
			}
		}
		base = records[schema]
	}
	doc, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// alter makes changes to a JSON document. A path whose parents are missing is a mistake of the test.
func alter(t *testing.T, doc []byte, changes ...change) []byte {
	t.Helper()
	root := decode(t, doc)
	for _, c := range changes {
		parent, key, _ := cutLast(c.path)
		var at any = root
		for step := range strings.SplitSeq(parent, "/") {
			if step == "" {
				continue
			}
			if list, ok := at.([]any); ok {
				i, err := strconv.Atoi(step)
				if err != nil || i >= len(list) {
					t.Fatalf("%s: no %q", c.path, step)
				}
				at = list[i]
			} else {
				at = at.(map[string]any)[step]
			}
		}
		switch at := at.(type) {
		case map[string]any:
			if _, gone := c.value.(removed); !gone {
				at[key] = c.value
			} else if _, ok := at[key]; ok {
				delete(at, key)
			} else {
				t.Fatalf("%s is not there to be removed", c.path)
			}
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(at) {
				t.Fatalf("%s: no such index", c.path)
			}
			at[i] = c.value
		default:
			t.Fatalf("%s: no such place", c.path)
		}
	}
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decode(t *testing.T, doc []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func readExample(t *testing.T, name string) []byte {
	t.Helper()
	doc, err := contracts.Examples.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func readSchema(t *testing.T, name string) map[string]any {
	t.Helper()
	doc, err := contracts.Schemas.ReadFile("schemas/" + name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, doc)
}

// exampleObject gives the data.object of a Stripe example.
func exampleObject(t *testing.T, name string) map[string]any {
	t.Helper()
	return decode(t, readExample(t, name))["data"].(map[string]any)["object"].(map[string]any)
}

// duplicateKeys reads one JSON value and says which object has a key twice.
func duplicateKeys(d *json.Decoder, at string) error {
	tok, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[any]bool{}
	for d.More() {
		below := at
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			if seen[key] {
				return fmt.Errorf("%q has %q twice", at, key)
			}
			seen[key] = true
			below += fmt.Sprintf("/%v", key)
		}
		if err := duplicateKeys(d, below); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
