package contracts_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/streams"
)

// TestAsyncAPI holds asyncapi.yaml against the subjects and headers of this package,
// the schemas, and the filters of the durables.
func TestAsyncAPI(t *testing.T) {
	t.Parallel()
	doc := scanYAML(t, "asyncapi.yaml")

	used := map[string]bool{}
	for at, ref := range doc.refs {
		if target, local := strings.CutPrefix(ref, "#"); local {
			if _, ok := doc.values[target]; !ok {
				t.Errorf("%s: nothing is at %s", at, ref)
			}
			continue
		}
		if _, err := contracts.Schemas.Open(ref); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		used[strings.TrimSuffix(strings.TrimPrefix(ref, "schemas/"), ".schema.json")] = true
	}
	// These are parts of others, or in the case of Meta's a body that is cut up before it travels.
	for _, part := range []string{"common", "stripe_invoice", "stripe_subscription", "facebook_leadgen"} {
		used[part] = true
	}
	names, err := contractstest.Names()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names, slices.Sorted(maps.Keys(used))); diff != "" {
		t.Errorf("schemas (-in schemas/ +in asyncapi.yaml):\n%s", diff)
	}

	key := contracts.SubjectOfKey
	want := []string{
		contracts.SubjectStripe("{eventType}"), contracts.SubjectFacebookLeadgen,
		contracts.SubjectInbound("{phone}"), contracts.SubjectOptOut("{phone}"), contracts.SubjectStatus("{messageSid}"),
		key(contracts.KeyLead("{leadgenId}")), key(contracts.KeyContact("{phone}")), key(contracts.KeyCustomer("{customerId}")),
		key(contracts.KeySubscription("{subscriptionId}")), key(contracts.KeyChurn("{subscriptionId}")), key(contracts.KeyOptOut("{phone}")),
		key(contracts.KeySMS("{kind}", "{cause}")), key(contracts.KeyIncident("{incidentId}")), key(contracts.KeyLeadIndex("{leadgenId}")),
		key(contracts.KeyIncidentIndex), key(contracts.KeyStripe), key(contracts.KeyTextIndex("{messageSid}")), strings.TrimSuffix(key(contracts.KeyFailed("{incidentId}", 0)), "0") + "{block}",
		key(regexp.MustCompile(`[0-9a-f]{32}$`).ReplaceAllString(contracts.KeyEmailIndex("camille@example.com"), "{hash}")),
	}
	addresses := map[string]string{} // by channel
	for at, value := range doc.values {
		if channel, ok := strings.CutPrefix(at, "/channels/"); ok && strings.HasSuffix(channel, "/address") {
			addresses[strings.TrimSuffix(channel, "/address")] = value
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(maps.Values(addresses))); diff != "" {
		t.Errorf("addresses (-in Go +in asyncapi.yaml):\n%s", diff)
	}
	for channel, address := range addresses {
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(address, -1) {
			if _, ok := doc.values["/channels/"+channel+"/parameters/"+m[1]]; !ok {
				t.Errorf("channel %s does not say what %s is", channel, m[1])
			}
		}
	}

	for _, h := range []string{
		contracts.HeaderSpecVersion, contracts.HeaderID, contracts.HeaderSource, contracts.HeaderType, contracts.HeaderTime,
		contracts.HeaderSubject, contracts.HeaderContentType, contracts.HeaderTraceparent,
	} {
		if _, ok := doc.values["/components/messageTraits/webhook/headers/properties/"+h]; !ok {
			t.Errorf("the header %s is missing", h)
		}
	}

	// Which addresses each program sends to, or durable receives from.
	got := map[string][]string{}
	for at, action := range doc.values {
		operation, ok := strings.CutSuffix(at, "/action")
		if !ok || !strings.HasPrefix(at, "/operations/") {
			continue
		}
		who := strings.TrimPrefix(doc.refs[operation+"/tags/0"], "#/components/tags/")
		channel := strings.TrimPrefix(doc.refs[operation+"/channel"], "#/channels/")
		got[action+" "+who] = append(got[action+" "+who], addresses[channel])
	}
	declared, err := streams.Declared(0)
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string][]string{}
	for _, address := range addresses {
		if strings.HasPrefix(address, "webhooks.") {
			wanted["send edge"] = append(wanted["send edge"], address)
		}
		for _, s := range declared {
			for _, c := range s.Consumers {
				for _, filter := range append(c.FilterSubjects, c.FilterSubject) {
					if filter != "" && strings.HasPrefix(address, strings.TrimSuffix(filter, ">")) {
						wanted["receive "+c.Durable] = append(wanted["receive "+c.Durable], address)
					}
				}
			}
		}
	}
	for _, m := range []map[string][]string{got, wanted} {
		for _, list := range m {
			slices.Sort(list)
		}
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("operations (-the edge and the durables +asyncapi.yaml):\n%s", diff)
	}
}

// A yamlDoc is what scanYAML finds: the value of each key, and where each $ref
// points, both by the JSON pointer of the key. A list's items are numbered.
type yamlDoc struct {
	values map[string]string
	refs   map[string]string
}

var (
	yamlLine = regexp.MustCompile(`^( *)((?:- )*)(?:([\w$.-]+):(?: (.*))?|(.*))$`)
	yamlRef  = regexp.MustCompile(`\$ref: '?([^' }]+)`)
)

// scanYAML reads as much of YAML as asyncapi.yaml uses: keys a line, lists of keys,
// text blocks, and { $ref: … } in one line. Anything else fails the test, and so does
// a key that an object has twice.
func scanYAML(t *testing.T, file string) yamlDoc {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc := yamlDoc{map[string]string{}, map[string]string{}}
	type level struct {
		indent int
		path   string
		items  int
	}
	stack := []level{{indent: -1}}
	block := -1 // the indent of the key whose text block goes on
	for n, line := range strings.Split(string(text), "\n") {
		m := yamlLine.FindStringSubmatch(line)
		indent, dash, key, value := len(m[1]), m[2], m[3], m[4]
		if block >= 0 && (indent > block || line == "") {
			continue
		}
		block = -1
		if line == "" || strings.HasPrefix(m[5], "#") {
			continue
		}
		if key == "" || indent%2 != 0 || len(dash) > 2 {
			t.Fatalf("%s:%d: not understood: %s", file, n+1, line)
		}
		for stack[len(stack)-1].indent >= indent {
			stack = stack[:len(stack)-1]
		}
		parent := &stack[len(stack)-1]
		path := parent.path
		if dash != "" {
			path += "/" + string(rune('0'+parent.items))
			parent.items++
			stack = append(stack, level{indent: indent, path: path})
			indent += len(dash)
		}
		if ref := yamlRef.FindStringSubmatch(line); ref != nil {
			at := path
			if key != "$ref" {
				at += "/" + key
			}
			doc.refs[at] = ref[1]
		}
		path += "/" + key
		if _, twice := doc.values[path]; twice {
			t.Errorf("%s:%d: %s is there twice", file, n+1, path)
		}
		doc.values[path] = strings.Trim(value, "'")
		stack = append(stack, level{indent: indent, path: path})
		if value == "|" {
			block = indent
		}
	}
	return doc
}
