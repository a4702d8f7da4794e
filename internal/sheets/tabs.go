package sheets

import (
	"strings"

	"leadpipe/contracts"
)

// The tabs, in the order in which they are created.
const (
	leadsTab = iota
	clientsTab
	churnTab
	optOutsTab
	incidentsTab
	numTabs
)

// A kind is what the cells of a column hold.
type kind int

const (
	word   kind = iota // a text
	number             // a count, or an amount in the currency's major unit
	moment             // a time, as the serial number of a date in the spreadsheet's time zone
)

// A heading is a column of ours.
type heading struct {
	name string
	kind kind
}

// A tab is a sheet of ours: its title and its columns, the key first.
type tab struct {
	title   string
	columns []heading
	// mark is the column that has the mark while a row has nothing but its key: the last
	// one of the first release, which may write to the same sheet during an upgrade.
	mark int
}

// names gives the columns' headings.
func (t tab) names() []string {
	out := make([]string, len(t.columns))
	for i, c := range t.columns {
		out[i] = c.name
	}
	return out
}

// tabs is INTERFACE section 5. Nothing changes it.
var tabs = [numTabs]tab{
	leadsTab: {"Leads", []heading{{"id", word}, {"created_at", moment}, {"name", word}, {"phone", word}, {"email", word}, {"form_id", word},
		{"status", word}, {"opted_out_at", moment}, {"customer_id", word}, {"updated_at", moment}, {"answers", word}, {"platform", word},
		{"campaign_id", word}, {"ad_id", word}}, 9},
	clientsTab: {"Clients", []heading{{"customer_id", word}, {"name", word}, {"email", word}, {"phone", word}, {"lead_id", word}, {"status", word},
		{"access", word}, {"subscription_id", word}, {"price_id", word}, {"amount", number}, {"currency", word}, {"current_period_end", moment},
		{"failed_attempts", number}, {"updated_at", moment}}, 13},
	churnTab: {"Churn", []heading{{"subscription_id", word}, {"customer_id", word}, {"email", word}, {"price_id", word}, {"amount", number},
		{"currency", word}, {"ended_at", moment}, {"reason", word}}, 7},
	optOutsTab: {"Opt-outs", []heading{{"phone", word}, {"opted_out_at", moment}, {"keyword", word}, {"confirmed_at", moment},
		{"provider_blocked_at", moment}}, 4},
	incidentsTab: {"Incidents", []heading{{"id", word}, {"at", moment}, {"severity", word}, {"consumer", word}, {"reason", word}, {"action", word},
		{"count", number}, {"resolved_at", moment}}, 5},
}

// A rowID names a row: the tab, and the key in its first column.
type rowID struct {
	tab int
	key string
}

// rowOf says in which row a key's record is shown: none (false) for keys that have
// no row of their own, such as a subscription, which is part of its customer's.
func rowOf(key string) (rowID, bool) {
	kind, rest, _ := strings.Cut(key, ".")
	switch kind {
	case "lead":
		return rowID{leadsTab, rest}, true
	case "customer":
		return rowID{clientsTab, rest}, true
	case "churn":
		return rowID{churnTab, rest}, true
	case "optout":
		return rowID{optOutsTab, "+" + rest}, true
	case "incident":
		return rowID{incidentsTab, rest}, true
	}
	return rowID{}, false
}

// deleted says whether a revision is the marker of `nats kv del` or `purge`.
func deleted(m contracts.Message) bool {
	op := m.Header["KV-Operation"]
	return len(m.Data) == 0 || op == "DEL" || op == "PURGE"
}

// keyOf is the key of the record that a row shows: the reverse of rowOf.
func keyOf(id rowID) string {
	switch id.tab {
	case leadsTab:
		return contracts.KeyLead(id.key)
	case clientsTab:
		return contracts.KeyCustomer(id.key)
	case churnTab:
		return contracts.KeyChurn(id.key)
	case optOutsTab:
		return contracts.KeyOptOut(strings.TrimPrefix(id.key, "+"))
	}
	return contracts.KeyIncident(id.key)
}

// kinds begin the keys of records that have a row of their own.
func kinds() []string { return []string{"lead.", "customer.", "churn.", "optout.", "incident."} }
