// Package identity knows who belongs together: which leads and which customers are
// one person. A customer is linked to a lead by the lead's id where Stripe's events
// name it (metadata before client_reference_id, which is often a cart's number), else by
// phone, else by e-mail; always to a lead that exists. Of a lead's several customers the
// one that has not left gives it its status. Test data and other accounts' are kept
// apart (world.go).
//
// Leads come from Meta and customers from Stripe, in any order. So the links are
// never steps but functions of what is stored: whoever changes a lead or a customer
// puts it through SetLead or SetCustomer, which write it, list it in the contact and
// in the indexes, and compute the links and statuses of everyone that it touches.
// Lists only grow, and any order of the same calls ends in the same records.
package identity

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/state"
)

// SetLead stores a lead and all that follows from it: its contact and indexes, its
// customer_id, customer_status and status, and the lead_id of customers that it
// belongs to. lead holds the facts of its form; what is stored of contacted_at and
// opted_out_at stays, and a contact's opt-out covers the lead. A phone with a
// PhoneIssue links nobody. An error is that of the transaction, to be returned as
// it is.
func SetLead(tx *state.Tx, lead contracts.Lead) error {
	key := contracts.KeyLead(lead.ID)
	if err := tx.Need(append(keysOfLead(lead), key)...); err != nil {
		return err
	}
	stored, _, err := state.Get[contracts.Lead](tx, key)
	if err != nil {
		return err
	}
	lead.ContactedAt = first(lead.ContactedAt, stored.ContactedAt)
	lead.OptedOutAt = first(lead.OptedOutAt, stored.OptedOutAt)
	if p := phoneOf(lead); p != "" {
		if err := enter(tx, p, func(c *contracts.Contact) { c.Leads = with(c.Leads, lead.ID) }); err != nil {
			return err
		}
	}
	if k := contracts.KeyEmailIndex(lead.Email); k != "" {
		if err := index(tx, k, func(x *contracts.Index) { x.Leads = with(x.Leads, lead.ID) }); err != nil {
			return err
		}
	}
	// The lead is there first, so that its customers' links can be computed, and then its own.
	if err := tx.Put(key, lead); err != nil {
		return err
	}
	left := map[string]bool{} // leads that lose a customer to this one
	customers, err := listed(tx, lead)
	if err != nil {
		return err
	}
	for _, c := range customers {
		leads, err := leadsOf(tx, c)
		if err != nil {
			return err
		}
		id := leadID(leads)
		if id == c.LeadID {
			continue
		}
		left[c.LeadID] = true
		c.LeadID = id
		if err := tx.Put(contracts.KeyCustomer(c.ID), c); err != nil {
			return err
		}
	}
	if err := settle(tx, lead); err != nil {
		return err
	}
	return settleAll(tx, slices.Sorted(maps.Keys(left)))
}

// SetCustomer stores a customer and all that follows from it: its lead_id, its
// contacts and indexes, and the customer and the status of every lead that it may
// belong to. It is known under c.Emails, c.Phones (E.164) and c.Refs. A customer
// whose Since is zero is no client yet and changes no lead's status. An error is
// that of the transaction, to be returned as it is.
func SetCustomer(tx *state.Tx, c contracts.Customer) error {
	key := contracts.KeyCustomer(c.ID)
	if err := tx.Need(append(keysOfCustomer(c), key)...); err != nil {
		return err
	}
	stored, _, err := state.Get[contracts.Customer](tx, key)
	if err != nil {
		return err
	}
	for _, p := range c.Phones {
		if err := enter(tx, p, func(k *contracts.Contact) { k.Customers = with(k.Customers, c.ID) }); err != nil {
			return err
		}
	}
	for _, k := range keysOfCustomer(c) {
		if !strings.HasPrefix(k, "index.") {
			continue
		}
		if err := index(tx, k, func(x *contracts.Index) { x.Customers = with(x.Customers, c.ID) }); err != nil {
			return err
		}
	}
	leads, err := leadsOf(tx, c)
	if err != nil {
		return err
	}
	c.LeadID = leadID(leads)
	if err := tx.Put(key, c); err != nil {
		return err
	}
	touched := map[string]bool{}
	for _, l := range leads {
		touched[l.ID] = true
	}
	// What it was known under before, in another world, it is no more.
	was, err := leadsOf(tx, stored)
	if err != nil {
		return err
	}
	for _, l := range was {
		touched[l.ID] = true
	}
	return settleAll(tx, slices.Sorted(maps.Keys(touched)))
}

// settleAll computes the customer and the status of leads, of those that exist.
func settleAll(tx *state.Tx, ids []string) error {
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == "" })
	if err := tx.Need(keys(contracts.KeyLead, [][]string{ids})...); err != nil {
		return err
	}
	var leads []contracts.Lead
	var need []string
	for _, id := range ids {
		l, ok, err := state.Get[contracts.Lead](tx, contracts.KeyLead(id))
		if err != nil {
			return err
		}
		if ok {
			leads = append(leads, l)
			need = append(need, keysOfLead(l)...)
		}
	}
	if err := tx.Need(need...); err != nil {
		return err
	}
	for _, l := range leads {
		if err := settle(tx, l); err != nil {
			return err
		}
	}
	return nil
}

// How two are known to be one person, the surest way first.
const (
	byID = iota
	byPhone
	byEmail
)

type knownLead struct {
	contracts.Lead
	by int
}

type knownCustomer struct {
	contracts.Customer
	by int
}

// leadID picks a customer's lead among those that exist, as leadsOf lists them: the first
// that Stripe's events name, else the earliest known by phone, else the earliest by
// e-mail; "" without any.
func leadID(leads []knownLead) string {
	if len(leads) == 0 {
		return ""
	}
	surest := leads[0].by
	if surest == byID {
		return leads[0].ID
	}
	leads = slices.DeleteFunc(slices.Clone(leads), func(l knownLead) bool { return l.by != surest })
	return slices.MinFunc(leads, func(a, b knownLead) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	}).ID
}

// settle computes a lead's customer and status, and stores it. A customer that has not
// left comes before one that has, since a person may come back as a new customer; then
// the surest link counts.
func settle(tx *state.Tx, lead contracts.Lead) error {
	known, err := customersOf(tx, lead)
	if err != nil {
		return err
	}
	known = slices.DeleteFunc(known, func(k knownCustomer) bool { return k.Since.IsZero() })
	if known, err = counting(tx, known); err != nil {
		return err
	}
	lead.CustomerID, lead.CustomerStatus = "", ""
	if len(known) > 0 {
		best := slices.MinFunc(known, func(a, b knownCustomer) int {
			return cmp.Or(
				truth(a.Status == contracts.CustomerChurned)-truth(b.Status == contracts.CustomerChurned),
				a.by-b.by, strings.Compare(a.ID, b.ID))
		})
		lead.CustomerID, lead.CustomerStatus = best.ID, best.Status
	}
	if p := phoneOf(lead); p != "" {
		contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits(p)))
		if err != nil {
			return err
		}
		lead.OptedOutAt = contact.OptedOutAt
	}
	lead.Settle()
	return tx.Put(contracts.KeyLead(lead.ID), lead)
}

// listed gives the customers that are listed under a lead's id, phone and e-mail.
func listed(tx *state.Tx, lead contracts.Lead) ([]contracts.Customer, error) {
	if err := tx.Need(keysOfLead(lead)...); err != nil {
		return nil, err
	}
	named, _, err := state.Get[contracts.Index](tx, contracts.KeyLeadIndex(lead.ID))
	if err != nil {
		return nil, err
	}
	ids := slices.Clone(named.Customers)
	if p := phoneOf(lead); p != "" {
		contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits(p)))
		if err != nil {
			return nil, err
		}
		ids = append(ids, contact.Customers...)
	}
	if k := contracts.KeyEmailIndex(lead.Email); k != "" {
		x, _, err := state.Get[contracts.Index](tx, k)
		if err != nil {
			return nil, err
		}
		ids = append(ids, x.Customers...)
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if err := tx.Need(keys(contracts.KeyCustomer, [][]string{ids})...); err != nil {
		return nil, err
	}
	var all []contracts.Customer
	for _, id := range ids {
		c, ok, err := state.Get[contracts.Customer](tx, contracts.KeyCustomer(id))
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, c)
		}
	}
	return all, nil
}

// customersOf gives the customers that a lead may belong to, with the surest way in
// which each is known. A list may name one that is known otherwise by now.
func customersOf(tx *state.Tx, lead contracts.Lead) ([]knownCustomer, error) {
	all, err := listed(tx, lead)
	if err != nil {
		return nil, err
	}
	var known []knownCustomer
	for _, c := range all {
		switch p := phoneOf(lead); {
		case c.LeadID == lead.ID && slices.ContainsFunc(refs(c), func(r contracts.LeadRef) bool { return r.ID == lead.ID }):
			known = append(known, knownCustomer{c, byID})
		case slices.Contains(c.Phones, p): // none of them is empty
			known = append(known, knownCustomer{c, byPhone})
		case lead.Email != "" && slices.ContainsFunc(c.Emails, func(e string) bool {
			return contracts.KeyEmailIndex(e) == contracts.KeyEmailIndex(lead.Email)
		}):
			known = append(known, knownCustomer{c, byEmail})
		}
	}
	return known, nil
}

// leadsOf gives the leads that a customer may belong to, each once, with the surest
// way in which it is known: the surest first, and those that events named in their order.
func leadsOf(tx *state.Tx, c contracts.Customer) ([]knownLead, error) {
	if err := tx.Need(keysOfCustomer(c)...); err != nil {
		return nil, err
	}
	ids := [][]string{byID: nil, byPhone: nil, byEmail: nil}
	for _, r := range refs(c) {
		ids[byID] = append(ids[byID], r.ID)
	}
	for _, p := range c.Phones {
		contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits(p)))
		if err != nil {
			return nil, err
		}
		ids[byPhone] = append(ids[byPhone], contact.Leads...)
	}
	for _, e := range c.Emails {
		x, _, err := state.Get[contracts.Index](tx, contracts.KeyEmailIndex(e))
		if err != nil {
			return nil, err
		}
		ids[byEmail] = append(ids[byEmail], x.Leads...)
	}
	if err := tx.Need(keys(contracts.KeyLead, ids)...); err != nil {
		return nil, err
	}
	var known []knownLead
	seen := map[string]bool{}
	for by, list := range ids {
		for _, id := range list {
			if seen[id] {
				continue
			}
			seen[id] = true
			l, ok, err := state.Get[contracts.Lead](tx, contracts.KeyLead(id))
			if err != nil {
				return nil, err
			}
			if ok {
				known = append(known, knownLead{l, by})
			}
		}
	}
	return known, nil
}

// refs are the lead ids that a customer's events named. A record of the former release
// has but one, of which it does not say where it stood.
func refs(c contracts.Customer) []contracts.LeadRef {
	if len(c.Refs) == 0 && c.LeadRef != "" {
		return []contracts.LeadRef{{ID: c.LeadRef, Kind: "reference"}}
	}
	return c.Refs
}

// enter changes a phone's contact.
func enter(tx *state.Tx, phone string, change func(*contracts.Contact)) error {
	key := contracts.KeyContact(digits(phone))
	c, _, err := state.Get[contracts.Contact](tx, key)
	if err != nil {
		return err
	}
	c.Phone = phone
	change(&c)
	return tx.Put(key, c)
}

// index changes an index.
func index(tx *state.Tx, key string, change func(*contracts.Index)) error {
	x, _, err := state.Get[contracts.Index](tx, key)
	if err != nil {
		return err
	}
	change(&x)
	return tx.Put(key, x)
}

// keysOfLead names where a lead's customers are listed.
func keysOfLead(lead contracts.Lead) []string {
	keys := []string{contracts.KeyLeadIndex(lead.ID)}
	if p := phoneOf(lead); p != "" {
		keys = append(keys, contracts.KeyContact(digits(p)))
	}
	if k := contracts.KeyEmailIndex(lead.Email); k != "" {
		keys = append(keys, k)
	}
	return keys
}

// keysOfCustomer names where a customer is listed.
func keysOfCustomer(c contracts.Customer) []string {
	var keys []string
	for _, r := range refs(c) {
		keys = append(keys, contracts.KeyLeadIndex(r.ID))
	}
	for _, p := range c.Phones {
		keys = append(keys, contracts.KeyContact(digits(p)))
	}
	for _, e := range c.Emails {
		keys = append(keys, contracts.KeyEmailIndex(e))
	}
	return keys
}

func keys(name func(string) string, ids [][]string) []string {
	var all []string
	for _, list := range ids {
		for _, id := range list {
			all = append(all, name(id))
		}
	}
	return all
}

// phoneOf is the number by which a lead is known, E.164; "" without one.
func phoneOf(lead contracts.Lead) string {
	if lead.PhoneIssue != "" || !strings.HasPrefix(lead.Phone, "+") {
		return ""
	}
	return lead.Phone
}

func digits(e164 string) string { return strings.TrimPrefix(e164, "+") }

// with gives a sorted list that holds id.
func with(ids []string, id string) []string {
	i, ok := slices.BinarySearch(ids, id)
	if ok {
		return ids
	}
	return slices.Insert(slices.Clone(ids), i, id)
}

// first gives a unless it is zero.
func first(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}
