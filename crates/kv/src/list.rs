//! Doubly-linked lists through one array: taking one, adding one and removing one from the middle
//! are all O(1), and nothing is allocated.
//!
//! A node is in one list at a time; who uses them knows in which.

/// No node: either end of a list.
pub(crate) const NONE: u32 = u32::MAX;

/// A node's neighbours; meaningless while it is in no list.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Link {
    pub(crate) previous: u32,
    pub(crate) next: u32,
}

impl Link {
    pub(crate) const ALONE: Link = Link {
        previous: NONE,
        next: NONE,
    };
}

/// An array that has a link for each node.
pub(crate) trait Links {
    fn link(&self, node: u32) -> Link;
    fn link_mut(&mut self, node: u32) -> &mut Link;
}

/// The ends of a list.
#[derive(Copy, Clone, Debug)]
pub(crate) struct List {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) len: u32,
}

impl List {
    pub(crate) const EMPTY: List = List {
        first: NONE,
        last: NONE,
        len: 0,
    };

    pub(crate) fn push_front(&mut self, links: &mut impl Links, node: u32) {
        *links.link_mut(node) = Link {
            previous: NONE,
            next: self.first,
        };
        match self.first {
            NONE => self.last = node,
            first => links.link_mut(first).previous = node,
        }
        self.first = node;
        self.len += 1;
    }

    pub(crate) fn push_back(&mut self, links: &mut impl Links, node: u32) {
        *links.link_mut(node) = Link {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = node,
            last => links.link_mut(last).next = node,
        }
        self.last = node;
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, links: &mut impl Links, node: u32) {
        self.remove_chain(links, node, node, 1);
    }

    /// Removes `count` nodes, `first` to `last`, that follow one another in the list.
    pub(crate) fn remove_chain(
        &mut self,
        links: &mut impl Links,
        first: u32,
        last: u32,
        count: u32,
    ) {
        let (previous, next) = (links.link(first).previous, links.link(last).next);
        match previous {
            NONE => self.first = next,
            _ => links.link_mut(previous).next = next,
        }
        match next {
            NONE => self.last = previous,
            _ => links.link_mut(next).previous = previous,
        }
        self.len -= count;
    }

    /// Puts `new` where `old` was.
    pub(crate) fn replace(&mut self, links: &mut impl Links, old: u32, new: u32) {
        let link = links.link(old);
        *links.link_mut(new) = link;
        match link.previous {
            NONE => self.first = new,
            previous => links.link_mut(previous).next = new,
        }
        match link.next {
            NONE => self.last = new,
            next => links.link_mut(next).previous = new,
        }
    }
}
