// Package contractstest holds what a program writes against the JSON Schemas of
// package contracts. Tests call it on the bytes that they find in a stream or in
// the bucket, so that the wire and its description can't drift apart.
package contractstest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"leadpipe/contracts"
)

const suffix = ".schema.json"

// stripe names the schema of each event type that has one of its own; any other
// type has the general one.
var stripe = map[string]string{
	"checkout.session.completed":    "stripe_checkout_session_completed",
	"customer.subscription.created": "stripe_subscription_created",
	"customer.subscription.updated": "stripe_subscription_updated",
	"customer.subscription.deleted": "stripe_subscription_deleted",
	"invoice.payment_succeeded":     "stripe_payment_succeeded",
	"invoice.payment_failed":        "stripe_payment_failed",
}

// Validate fails the test when doc is not what the schema says. The schema's name is
// that of its file without the ending: "lead", "stripe_payment_failed".
func Validate(tb testing.TB, schemaName string, doc []byte) {
	tb.Helper()
	if err := Check(schemaName, doc); err != nil {
		tb.Error(err)
	}
}

// Record fails the test when value is not a record of the crm bucket as its key says:
// Record(t, "lead.123", value) holds it against "lead".
func Record(tb testing.TB, key string, value []byte) {
	tb.Helper()
	kind, _, ok := strings.Cut(key, ".")
	switch {
	case key == contracts.KeyIncidentIndex:
		kind = "incident_index"
	case strings.HasPrefix(key, "index.text."):
		kind = "text_index"
	case key == contracts.KeyStripe:
		kind = "stripe_accounts"
	case strings.HasPrefix(key, "index.failed."):
		kind = "failed_block"
	}
	switch kind {
	case "lead", "contact", "customer", "subscription", "churn", "optout", "sms", "incident", "incident_index", "failed_block", "stripe_accounts", "text_index", "index":
	default:
		ok = false
	}
	if !ok {
		tb.Errorf("key %q: no record is kept under it", key)
		return
	}
	if err := Check(kind, value); err != nil {
		tb.Errorf("key %s: %v", key, err)
	}
}

// Webhook fails the test when data is not what may be published on the subject of the
// WEBHOOKS stream. A Stripe event must also be of the type that the subject names.
func Webhook(tb testing.TB, subject string, data []byte) {
	tb.Helper()
	name, err := schemaOf(subject)
	if err == nil {
		err = Check(name, data)
	}
	if err != nil {
		tb.Errorf("subject %s: %v", contracts.PublicSubject(subject), err)
		return
	}
	if eventType, ok := strings.CutPrefix(subject, contracts.PrefixStripe); ok {
		var event struct{ Type string }
		if err := json.Unmarshal(data, &event); err != nil || event.Type != eventType {
			tb.Errorf("subject %s: the event's type is %q (%v)", subject, event.Type, err)
		}
	}
}

// schemaOf gives the schema of a WEBHOOKS subject's payload.
func schemaOf(subject string) (string, error) {
	if eventType, ok := strings.CutPrefix(subject, contracts.PrefixStripe); ok {
		if name, ok := stripe[eventType]; ok {
			return name, nil
		}
		return "stripe_event", nil
	}
	if subject == contracts.SubjectFacebookLeadgen {
		return "facebook_leadgen_value", nil
	}
	for prefix, name := range map[string]string{
		contracts.PrefixTwilioInbound: "sms_inbound",
		contracts.PrefixTwilioOptOut:  "sms_inbound",
		contracts.PrefixTwilioStatus:  "sms_status",
	} {
		if strings.HasPrefix(subject, prefix) {
			return name, nil
		}
	}
	return "", errors.New("nothing is published on it")
}

// Check says how doc differs from what the schema says: nil when it does not. An
// unknown schema and a doc that is not JSON are errors too.
func Check(schemaName string, doc []byte) error {
	all, err := compiled()
	if err != nil {
		return err
	}
	schema, ok := all[schemaName]
	if !ok {
		return fmt.Errorf("schema %q: there is none of that name", schemaName)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return fmt.Errorf("reading a document for schema %s: %w", schemaName, err)
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("schema %s: %w", schemaName, err)
	}
	return nil
}

// Names lists the schemas' names, sorted.
func Names() ([]string, error) {
	files, err := fs.Glob(contracts.Schemas, "schemas/*"+suffix)
	if err != nil {
		return nil, fmt.Errorf("listing the schemas: %w", err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(path.Base(f), suffix)
	}
	return files, nil
}

// compiled gives the schemas by name. They are compiled once a process; formats
// such as date-time are asserted, which the draft leaves optional.
var compiled = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	url := func(name string) string { return "https://leadpipe.example/schemas/" + name + suffix }
	for _, name := range names {
		file, err := contracts.Schemas.ReadFile("schemas/" + name + suffix)
		if err != nil {
			return nil, fmt.Errorf("reading schema %s: %w", name, err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(file))
		if err != nil {
			return nil, fmt.Errorf("reading schema %s: %w", name, err)
		}
		if err := c.AddResource(url(name), doc); err != nil {
			return nil, fmt.Errorf("adding schema %s: %w", name, err)
		}
	}
	out := make(map[string]*jsonschema.Schema, len(names))
	for _, name := range names {
		if out[name], err = c.Compile(url(name)); err != nil {
			return nil, fmt.Errorf("compiling schema %s: %w", name, err)
		}
	}
	return out, nil
})
